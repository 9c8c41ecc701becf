import assert from 'node:assert/strict';
import { test } from 'node:test';
import { explainObstacle, type Obstacle } from './sandbox.js';

const user: Obstacle = {
  root: false,
  reason: 'Operation not permitted',
  maxUserNamespaces: 10_000,
  unprivilegedClone: undefined,
  apparmorRestriction: undefined,
};

test('what forbids namespaces is named, with what to do', () => {
  const cases: [Partial<Obstacle>, RegExp][] = [
    [{}, /Operation not permitted.*sudo make demo/],
    [{ maxUserNamespaces: 0 }, /sudo make demo.*sysctl -w user\.max_user_namespaces=10000$/],
    [{ unprivilegedClone: 0 }, /sysctl -w kernel\.unprivileged_userns_clone=1$/],
    [{ unprivilegedClone: 1 }, /Operation not permitted.*sudo make demo/],
    [{ apparmorRestriction: 1 }, /sysctl -w kernel\.apparmor_restrict_unprivileged_userns=0$/],
    [{ apparmorRestriction: 0 }, /Operation not permitted.*sudo make demo/],
    // These are for ordinary users; root needs capabilities.
    [{ root: true, apparmorRestriction: 1 }, /Operation not permitted.*docker run --privileged/],
  ];
  for (const [facts, expected] of cases) {
    const line = explainObstacle({ ...user, ...facts });
    assert.match(line, expected);
    assert.doesNotMatch(line, /\n/);
  }
});
