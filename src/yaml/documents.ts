/**
 * YAML within limits: what is nested too deep takes more stack or time than a process has to spare, and the parser itself has
 * no limit.
 */
import { Composer, Lexer, Parser, type CST, type Document, type LineCounter } from 'yaml';

/** Objects of Kubernetes nest some dozen levels. */
export const maxDepth = 100;

/** The text is nested too deep. */
export class DepthError extends Error {
  override readonly name = 'DepthError';
  /** Where, in characters from the start. */
  readonly offset: number;

  constructor(offset: number) {
    super(`nested more than ${maxDepth} levels deep`);
    this.offset = offset;
  }
}

/**
 * All documents of a text, each with its errors.
 * @param lines learns where lines begin
 * @throws DepthError before anything is composed
 */
export function parseDocuments(
  text: string,
  lines: LineCounter,
  options: { readonly uniqueKeys: boolean },
): readonly Document.Parsed[] {
  const composer = new Composer({ ...options, lineCounter: lines, logLevel: 'error' });
  return [...composer.compose(tokens(text, lines))] as readonly Document.Parsed[];
}

function* tokens(text: string, lines: LineCounter): Generator<CST.Token, void> {
  const parser = new Parser(lines.addNewLine);
  lines.addNewLine(0);
  for (const lexeme of new Lexer().lex(text)) {
    yield* parser.next(lexeme);
    // The document and the scalar that is being read stand there, too.
    if (parser.stack.length > maxDepth + 2) throw new DepthError(parser.offset);
  }
  yield* parser.end();
}

/** Where JSON that is known to be valid is nested too deep, in characters from the start; undefined: nowhere. */
export function tooDeepInJson(json: string): number | undefined {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < json.length; i++) {
    switch (json.charCodeAt(i)) {
      case 0x22: // "
        inString = !inString;
        break;
      case 0x5c: // \, only in strings
        i++;
        break;
      case 0x5b: // [
      case 0x7b: // {
        if (!inString && ++depth > maxDepth) return i;
        break;
      case 0x5d: // ]
      case 0x7d: // }
        if (!inString) depth--;
    }
  }
  return undefined;
}
