/** The checker of the soak has to notice what is wrong: the program is stopped, the kernel is damaged, and it must say so. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { removeStale } from '../conformance/topology.js';
import { patiently } from '../patience.js';
import { foreignTables, Lab } from './lab.js';
import { Packets } from './packets.js';
import { keyOf, World } from './world.js';

const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces can only be made by root';

/** Of the first lasting Service, with an endpoint on this node. */
const address = '10.177.11.234';

interface Damage {
  readonly title: string;
  readonly script: string;
  /** What the comparison says. */
  readonly told: RegExp;
  /** What packets tell; absent: no packet meets it. */
  readonly seen?: RegExp;
}

const damages: readonly Damage[] = [
  {
    title: 'an address is missing',
    script: `delete element ip kube-proxy service-ips { ${address} . tcp . 80 }`,
    told: /to 10\.177\.11\.234 TCP 80: rejected, not to 10\.61\.1\.32 9000/,
    seen: /to 10\.177\.11\.234 TCP 80: refused, not to 10\.61\.1\.32 9000/,
  },
  {
    title: 'an address leads to an endpoint of another Service',
    script: `delete element ip kube-proxy endpoints { ${address} . tcp . 80 . 0 }
      add element ip kube-proxy endpoints { ${address} . tcp . 80 . 0 : 10.61.3.123 . 9000 }`,
    told: /to 10\.177\.11\.234 TCP 80: to 10\.61\.3\.123 9000, masqueraded, not to 10\.61\.1\.32 9000/,
    seen: /to 10\.177\.11\.234 TCP 80: answered by 10\.61\.3\.123 9000/,
  },
  {
    title: 'an address is refused that should be served',
    script: `delete element ip kube-proxy service-ips { ${address} . udp . 80 }
      add element ip kube-proxy rejected-ips { ${address} . udp . 80 }`,
    told: /to 10\.177\.11\.234 UDP 80: rejected/,
    seen: /to 10\.177\.11\.234 UDP 80: refused/,
  },
  {
    title: 'nothing is masqueraded',
    script: 'flush chain ip kube-proxy masquerading',
    told: /to 10\.61\.1\.32 9000, not to 10\.61\.1\.32 9000, masqueraded/,
    seen: /which saw 198\.51\.100\.\d+ \d+, not to 10\.61\.1\.32 9000, masqueraded/,
  },
  {
    title: 'nothing is translated',
    script: 'flush chain ip kube-proxy services',
    told: /to 10\.177\.11\.234 TCP 80: rejected/,
    seen: /to 10\.177\.11\.234 TCP 80: refused/,
  },
  {
    title: 'addresses of no Service go out of the node',
    script: 'flush set ip kube-proxy service-cidrs',
    told: /to 10\.177\.15\.1 TCP 9: passed, not dropped/,
  },
  {
    title: 'an endpoint that nobody needs',
    script: 'add element ip kube-proxy endpoints { 203.0.113.99 . tcp . 80 . 0 : 10.61.3.100 . 9000 }',
    told: /endpoints holds '203\.0\.113\.99 tcp 80 0', which nothing needs/,
  },
  {
    title: 'an address that no Service has',
    script: 'add element ip kube-proxy service-ips { 203.0.113.99 . tcp . 80 : 1:1 }',
    told: /203\.0\.113\.99/,
  },
  {
    title: "a rule that is not the program's",
    script: 'add rule ip kube-proxy services counter',
    told: /unknown in services: \{"counter"/,
  },
  {
    title: 'a chain that is not',
    script: 'add chain ip kube-proxy foreign-chain',
    told: /foreign-chain is still there/,
  },
  {
    title: 'in IPv6, a hook is gone',
    script: 'delete chain ip6 kube-proxy nat-output',
    told: /^2001:db8:a::11 to fd77::\w+ TCP 80: rejected, not to/m,
  },
  {
    title: 'the table is asleep',
    script: 'add table ip kube-proxy { flags dormant; }',
    told: /the table is asleep|nft -j does not print JSON/,
    seen: /to 10\.177\.11\.234 TCP 80: answered by \S+ \d+ in elsewhere/,
  },
  {
    title: 'the table is gone',
    script: 'delete table ip kube-proxy',
    told: /IPv4: the table is not there/,
    seen: /to 10\.177\.11\.234 TCP 80: answered by \S+ \d+ in elsewhere/,
  },
];

describe('the checker of the soak', { skip }, () => {
  const world = new World(new Random(1), 10);
  let lab: Lab;
  let packets: Packets;

  before(async () => {
    await removeStale();
    lab = await Lab.open();
    packets = new Packets(lab.topology, new Random(2));
    await lab.api.write([...world.begin()]);
    await lab.alder.nft(foreignTables);
    lab.alder.program.start();
    await settled();
  });
  after(async () => {
    lab.alder.program.signal('SIGCONT');
    await lab.close();
  });

  async function settled(): Promise<void> {
    const deadline = performance.now() + patiently(30_000);
    for (;;) {
      const { differences } = await lab.alder.judge(world);
      if (differences.length === 0) return;
      if (performance.now() > deadline) assert.fail(differences.join('\n'));
      await sleep(50);
    }
  }

  /** What packets tell about the first lasting Service. */
  async function seen(): Promise<string[]> {
    const expectation = lab.alder.expectation(world);
    const ports = expectation.ports.filter(
      ({ service, family }) => keyOf(service) === 'stay/s0' && family === 'IPv4',
    );
    assert.equal(ports.length, 2);
    // From two of four clients at a time.
    const rounds = [];
    for (let i = 0; i < 4; i++) rounds.push(...(await packets.ask(expectation, ports, true)));
    return rounds;
  }

  test('nothing is wrong when nothing is wrong', async () => {
    assert.deepEqual(await seen(), []);
  });

  for (const { title, script, told, seen: answer } of damages) {
    test(title, async () => {
      lab.alder.program.signal('SIGSTOP');
      await lab.alder.nft(script);
      const { differences } = await lab.alder.judge(world);
      assert.match(differences.join('\n'), told);
      const problems = await seen();
      if (answer !== undefined) assert.match(problems.join('\n'), answer);
      lab.alder.program.signal('SIGCONT');
      // Repairs soon after one another are put off.
      await sleep(1500);
      await settled();
      assert.deepEqual(await seen(), []);
    });
  }

  test('the program does not hear of a change', async () => {
    lab.alder.program.signal('SIGSTOP');
    const before = world.services.size;
    while (world.services.size === before) await lab.api.write([...world.change()]);
    const { differences } = await lab.alder.judge(world);
    assert.notDeepEqual(differences, []);
    lab.alder.program.signal('SIGCONT');
    await settled();
  });

  test("somebody else's table is touched", async () => {
    const { foreign } = await lab.alder.judge(world);
    await lab.alder.nft('add element inet kube-proxy neighbours { 192.0.2.202 }');
    assert.notEqual((await lab.alder.judge(world)).foreign, foreign);
  });

  test('a connection that was up is lost', async () => {
    const expectation = lab.alder.expectation(world);
    while (packets.holding < 3) await packets.hold(expectation);
    assert.deepEqual(await packets.askHeld(), []);
    // As if the kernel had forgotten them.
    lab.alder.program.signal('SIGSTOP');
    await lab.alder.nft('delete table ip kube-proxy\ndelete table ip6 kube-proxy');
    await lab.topology.forgetConnections();
    assert.match((await packets.askHeld()).join('\n'), /a connection that was up, .* answered by/);
    lab.alder.program.signal('SIGCONT');
  });
});
