/** Transactions of others that the kernel did not report are noticed; all others are not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Generations } from './generations.js';

const deliveryMs = 20;

/** @param first the kernel's generation at the beginning */
function begin(first = 100) {
  let generation = first;
  let own = 0;
  let missed = 0;
  const generations = new Generations({
    current: () => generation,
    own: () => own,
    onMissed: () => missed++,
    deliveryMs,
  });
  return {
    generations,
    ours: () => {
      generation = (generation + 1) >>> 0;
      own++;
    },
    /** @returns its number, for heard() */
    theirs: () => (generation = (generation + 1) >>> 0),
    missedAfterAll: async () => {
      await sleep(3 * deliveryMs);
      generations.close();
      return missed;
    },
  };
}
type Kernel = ReturnType<typeof begin>;
const idle = (): void => undefined;

const cases: readonly [what: string, missed: number, happens: (kernel: Kernel) => void][] = [
  [
    'our own transactions, large and small',
    0,
    ({ generations, ours }) => {
      ours();
      generations.during(idle, ours, idle);
      ours();
      generations.during(idle, ours, idle);
    },
  ],
  [
    'others, reported before the pause',
    0,
    ({ generations, ours, theirs }) => {
      for (let i = 0; i < 3; i++) generations.heard(theirs());
      ours();
      generations.during(idle, ours, idle);
      generations.heard(theirs());
      generations.during(idle, ours, idle);
    },
  ],
  [
    'others, whose notifications are read after the pause',
    0,
    ({ generations, ours, theirs }) => {
      const early = [theirs(), theirs()];
      generations.during(idle, ours, idle);
      const late = theirs();
      generations.during(idle, ours, idle);
      for (const generation of [...early, late]) generations.heard(generation);
    },
  ],
  [
    'one during the pause',
    1,
    ({ generations, ours, theirs }) => {
      generations.during(theirs, ours, idle);
    },
  ],
  [
    'one during the pause, the end of which was reported',
    1,
    ({ generations, ours, theirs }) => {
      let generation = 0;
      generations.during(idle, ours, () => {
        generation = theirs();
      });
      generations.heard(generation);
    },
  ],
  [
    'one that was under way when the pause began',
    1,
    ({ generations, ours, theirs }) => {
      theirs();
      generations.during(idle, ours, idle);
    },
  ],
  [
    'the same, and others that are reported',
    1,
    ({ generations, ours, theirs }) => {
      generations.heard(theirs());
      theirs();
      generations.during(idle, ours, idle);
      generations.heard(theirs());
      generations.during(idle, ours, idle);
    },
  ],
  [
    'a transaction of ours that the kernel refused',
    0,
    ({ generations, ours }) => {
      assert.throws(() => {
        generations.during(
          idle,
          () => {
            throw new Error('refused');
          },
          idle,
        );
      }, /refused/);
      generations.during(idle, ours, idle);
    },
  ],
  [
    'notifications were lost, and everything is looked at',
    0,
    ({ generations, ours, theirs }) => {
      const late = theirs();
      theirs();
      generations.forget();
      generations.heard(late);
      generations.during(idle, ours, idle);
    },
  ],
];
for (const [what, missed, happens] of cases) {
  test(`${what}: ${missed} missed`, async () => {
    const kernel = begin();
    happens(kernel);
    assert.equal(await kernel.missedAfterAll(), missed);
  });
}

test('the number of the generation may wrap around', async () => {
  const kernel = begin(0xffff_fffe);
  for (let i = 0; i < 4; i++) {
    kernel.generations.heard(kernel.theirs());
    kernel.generations.during(idle, kernel.ours, idle);
  }
  assert.equal(await kernel.missedAfterAll(), 0);
});

test('a kernel that does not answer: the work is done, and counts as a miss', async () => {
  let done = false;
  let missed = 0;
  let answers = true;
  const generations = new Generations({
    current: () => {
      if (!answers) throw new Error('ENOBUFS');
      return 7;
    },
    own: () => 0,
    onMissed: () => missed++,
  });
  answers = false;
  generations.during(
    idle,
    () => {
      done = true;
    },
    idle,
  );
  generations.close();
  assert.deepEqual([done, missed], [true, 1]);
  await Promise.resolve();
});
