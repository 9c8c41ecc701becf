/** What describeExpression() says, beside what nft says of the same rules. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { run } from '../../testing/namespace.js';
import { connect, prepare, skip } from '../testing/kernel.fixture.js';
import { RULE_CASES } from '../testing/rules.fixture.js';
import { describeExpression } from './index.js';

/** Without what nft prints after the operands, and says differently from one version to the next: trailing spaces. */
function expressionLines(text: string): string[] {
  return [...text.matchAll(/^ +(\[ .*\])$/gm)].map(([, line = '']) => line.replace(/ +/g, ' '));
}

test('expressions read as in nft --debug=netlink', { skip }, () => {
  const connection = connect();
  for (const family of ['ip', 'ip6'] as const) {
    const cases = RULE_CASES.filter((c) => c.family === family);
    const batch = prepare(family, 'described');
    for (const c of cases) batch.addRule(c.chain, c.expressions);
    connection.commit(batch);
    for (const chain of ['pre', 'post', 'c'] as const) {
      const lines = expressionLines(
        run('nft', '--debug=netlink', 'list', 'chain', family, 'described', chain),
      );
      const expressions = connection
        .listRules(family, 'described', chain)
        .flatMap((rule) => rule.expressions);
      assert.equal(expressions.length, lines.length);
      for (const [i, expression] of expressions.entries()) {
        if (expression.kind !== 'unknown') assert.equal(describeExpression(expression), lines[i]);
      }
    }
  }
});
