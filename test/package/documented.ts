/** Which names of the netlink package's entries, and which methods of their classes, say nothing about themselves. */
import { readdirSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';

/** What a class inherits or holds privately is not its surface. */
function isPublicMethod(member: ts.ClassElement): boolean {
  const hidden = ts.ModifierFlags.Private | ts.ModifierFlags.Protected;
  return ts.isMethodDeclaration(member) && (ts.getCombinedModifierFlags(member) & hidden) === 0;
}

/** A name that says it all: open() and close() of connections, registers. */
const selfEvident = /^(open|close|r\d+)$/;

function undocumentedIn(checker: ts.TypeChecker, exported: ts.Symbol): string[] {
  const symbol =
    (exported.flags & ts.SymbolFlags.Alias) === 0 ? exported : checker.getAliasedSymbol(exported);
  const isDocumented = (of: ts.Symbol): boolean =>
    of.getDocumentationComment(checker).length > 0 || of.getJsDocTags(checker).length > 0;
  const missing = isDocumented(symbol) || selfEvident.test(symbol.name) ? [] : [symbol.name];
  for (const declaration of symbol.declarations ?? []) {
    if (!ts.isClassDeclaration(declaration)) continue;
    for (const member of declaration.members.filter(isPublicMethod)) {
      const method = member.name === undefined ? undefined : checker.getSymbolAtLocation(member.name);
      if (method === undefined || selfEvident.test(method.name) || isDocumented(method)) continue;
      missing.push(`${symbol.name}.${method.name}()`);
    }
  }
  return missing;
}

/** @param dist where the declarations are: index.d.ts, and one in each folder that is an entry */
export function undocumented(dist: string): string[] {
  const entries = ['.', ...readdirSync(dist)]
    .map((name) => join(dist, name, 'index.d.ts'))
    .filter((file) => existsSync(file));
  const program = ts.createProgram(entries, {
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
    types: ['node'],
  });
  const checker = program.getTypeChecker();
  return entries.flatMap((file) => {
    const source = program.getSourceFile(file);
    const module = source === undefined ? undefined : checker.getSymbolAtLocation(source);
    if (module === undefined) throw new Error(`${file} is no module`);
    return checker.getExportsOfModule(module).flatMap((exported) => undocumentedIn(checker, exported));
  });
}
