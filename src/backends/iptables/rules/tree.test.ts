/** The prefix tree: its shape follows from its entries, and every packet finds its rule. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Random } from '@kube-proxy-ts/netlink/testing';
import type { IPFamily, Protocol } from '../../../model/types.js';
import { addressKey, AddressKeys, portKey, PortKeys } from './keys.js';
import { averageRules, outcomes, walk } from '../testing/walk.js';
import { ChainTree, type TreeEntry } from './tree.js';

/** What a tree has written, as a kernel would keep it. */
class Kernel {
  readonly chains = new Map<string, readonly string[]>();

  flush(tree: ChainTree): void {
    const root = tree.flush((name, rules) => {
      if (rules === undefined) assert.ok(this.chains.delete(name), `${name} was there`);
      else this.chains.set(name, rules);
    });
    this.chains.set('ROOT', root);
  }
}

interface Place {
  readonly ip: string;
  readonly protocol: Protocol;
  readonly port: number;
}

function entryOf(family: IPFamily, { ip, protocol, port }: Place, target: string): TreeEntry {
  const to = `-d ${ip}/${family === 'IPv4' ? 32 : 128} -p ${protocol.toLowerCase()}`;
  const rule = `${to} -m ${protocol.toLowerCase()} --dport ${port} -j DNAT --to-destination ${target}`;
  return { key: addressKey(ip, protocol, port), owner: 'test', rules: [rule] };
}

function packetTo({ ip, protocol, port }: Place) {
  const name = protocol.toLowerCase();
  assert.ok(name === 'tcp' || name === 'udp' || name === 'sctp');
  return {
    source: ip.includes(':') ? '2001:db8::1' : '192.0.2.1',
    destination: ip,
    protocol: name,
    port,
  } as const;
}

function targetOf(chains: ReadonlyMap<string, readonly string[]>, place: Place): string {
  const [only, second] = outcomes(walk(chains, 'ROOT', packetTo(place))).keys();
  assert.equal(second, undefined);
  return only ?? '';
}

/** Addresses that have long and short prefixes in common. */
function somePlace(random: Random, family: IPFamily): Place {
  const host = random.below(3) === 0 ? random.below(256) : random.below(40);
  const net = random.below(4) === 0 ? random.below(256) : 0;
  const ip =
    family === 'IPv4'
      ? `10.${[96, 96, 97, 200][random.below(4)] ?? 0}.${net}.${host}`
      : `fd00:${random.below(3)}::${net.toString(16)}${host.toString(16).padStart(2, '0')}`;
  const protocol = (['TCP', 'TCP', 'UDP', 'SCTP'] as const)[random.below(4)] ?? 'TCP';
  const port = random.below(2) === 0 ? 80 : 1 + random.below(65535);
  // Some addresses have very many ports.
  const crowded = random.below(3) === 0;
  return { ip: crowded ? (family === 'IPv4' ? '10.96.0.7' : 'fd00::7') : ip, protocol, port };
}

function placeId({ ip, protocol, port }: Place): string {
  return `${ip} ${protocol} ${port}`;
}

for (const family of ['IPv4', 'IPv6'] as const) {
  describe(`a tree of ${family} addresses`, () => {
    test('after any changes it is the one that is built from its entries, and leads every packet', () => {
      const random = new Random(family === 'IPv4' ? 1 : 2);
      const tree = new ChainTree(new AddressKeys(family, 'KUBE-SVC-'));
      const kernel = new Kernel();
      const places = new Map<string, Place>();
      const gone: Place[] = [];
      let most = 0;
      for (let round = 0; round < 80; round++) {
        for (let change = 1 + random.below(30); change > 0; change--) {
          const place = somePlace(random, family);
          if (random.below(round < 40 ? 4 : 1) === 0 && places.size > 0) {
            const [id, victim] = [...places][random.below(places.size)] ?? assert.fail();
            tree.delete(addressKey(victim.ip, victim.protocol, victim.port), 'test');
            places.delete(id);
            gone.push(victim);
          } else {
            tree.set(entryOf(family, place, placeId(place)));
            places.set(placeId(place), place);
          }
        }
        most = Math.max(most, places.size);
        kernel.flush(tree);

        const fresh = new ChainTree(new AddressKeys(family, 'KUBE-SVC-'));
        for (const place of [...places.values()].reverse()) fresh.set(entryOf(family, place, placeId(place)));
        const rebuilt = new Kernel();
        rebuilt.flush(fresh);
        assert.deepEqual(
          [...kernel.chains].sort(([a], [b]) => (a < b ? -1 : 1)),
          [...rebuilt.chains].sort(([a], [b]) => (a < b ? -1 : 1)),
        );
        for (const place of places.values())
          assert.equal(targetOf(kernel.chains, place), `DNAT --to-destination ${placeId(place)}`);
        for (const place of gone.slice(-20))
          if (!places.has(placeId(place))) assert.equal(targetOf(kernel.chains, place), 'nothing');
      }
      assert.ok(most > 200);
      assert.equal(places.size, 0);
      assert.deepEqual([...kernel.chains], [['ROOT', []]]);
    });
  });
}

test('one change rewrites the chains on its path, children before their parents', () => {
  const tree = new ChainTree(new AddressKeys('IPv4', 'KUBE-SVC-'));
  for (let i = 0; i < 5000; i++) {
    const place: Place = { ip: `10.96.${i >> 8}.${i & 255}`, protocol: 'TCP', port: 80 };
    tree.set(entryOf('IPv4', place, 'x'));
  }
  new Kernel().flush(tree);
  const written: string[] = [];
  tree.set(entryOf('IPv4', { ip: '10.96.9.9', protocol: 'UDP', port: 53 }, 'y'));
  tree.flush((name) => written.push(name));
  const lengths = written.map((name) => Number(name.split('/')[1]));
  assert.ok(written.length <= 9, written.join());
  assert.deepEqual(
    lengths,
    lengths.toSorted((a, b) => b - a),
  );
});

test('5,000 addresses: 20 rules to any of them, and a handful past them', () => {
  const random = new Random(7);
  const tree = new ChainTree(new AddressKeys('IPv4', 'KUBE-SVC-'));
  const kernel = new Kernel();
  const places: Place[] = [];
  for (let i = 0; i < 5000; i++) {
    const ip = `10.${96 + random.below(16)}.${random.below(256)}.${random.below(256)}`;
    const place: Place = { ip, protocol: 'TCP', port: 80 };
    places.push(place);
    tree.set(entryOf('IPv4', place, 'x'));
  }
  kernel.flush(tree);
  const met = places.map((place) => averageRules(walk(kernel.chains, 'ROOT', packetTo(place))));
  const average = met.reduce((sum, n) => sum + n, 0) / met.length;
  assert.ok(average < 22, `${average} rules on average`);
  assert.ok(Math.max(...met) < 45, `${Math.max(...met)} rules at most`);
  const pod = walk(kernel.chains, 'ROOT', packetTo({ ip: '10.244.3.9', protocol: 'TCP', port: 80 }));
  assert.ok(averageRules(pod) <= 4, `${averageRules(pod)} rules to a pod`);
  // With as few chains as that: iptables of the nf_tables kind is slow with many.
  assert.ok(kernel.chains.size < 5000 / 4, `${kernel.chains.size} chains`);
});

test('ports are told apart by ranges', () => {
  const tree = new ChainTree(new PortKeys('KUBE-SVC-'));
  const kernel = new Kernel();
  const rule = (protocol: string, port: number): string =>
    `-p ${protocol} -m ${protocol} --dport ${port} -j DNAT --to-destination ${protocol}:${port}`;
  for (let port = 30_000; port < 32_000; port += 3) {
    tree.set({ key: portKey('TCP', port), owner: 'a', rules: [rule('tcp', port)] });
    if (port % 2 === 0) tree.set({ key: portKey('UDP', port), owner: 'a', rules: [rule('udp', port)] });
  }
  kernel.flush(tree);
  for (let port = 29_990; port < 32_010; port++) {
    for (const protocol of ['tcp', 'udp', 'sctp'] as const) {
      const packet = { source: '192.0.2.1', destination: '192.0.2.2', protocol, port };
      const there =
        port >= 30_000 &&
        port < 32_000 &&
        port % 3 === 0 &&
        protocol !== 'sctp' &&
        (protocol === 'tcp' || port % 2 === 0);
      const [only] = outcomes(walk(kernel.chains, 'ROOT', packet)).keys();
      assert.equal(
        only,
        there ? `DNAT --to-destination ${protocol}:${port}` : 'nothing',
        `${protocol} ${port}`,
      );
    }
  }
  const bounds = (protocol: Protocol) => tree.bounds(portKey(protocol, 0), portKey(protocol, 65535));
  assert.deepEqual(bounds('TCP'), [portKey('TCP', 30_000), portKey('TCP', 31_998)]);
  assert.deepEqual(bounds('UDP'), [portKey('UDP', 30_000), portKey('UDP', 31_998)]);
  assert.deepEqual(bounds('SCTP'), [undefined, undefined]);
});

test('an entry that has passed to another owner is not taken away by the first', () => {
  const tree = new ChainTree(new PortKeys('KUBE-SVC-'));
  const key = portKey('TCP', 80);
  tree.set({ key, owner: 'a', rules: ['-j ACCEPT'] });
  tree.set({ key, owner: 'b', rules: ['-j DROP'] });
  tree.delete(key, 'a');
  assert.deepEqual(
    tree.flush(() => undefined),
    ['-j DROP'],
  );
  tree.delete(key, 'b');
  assert.deepEqual(
    tree.flush(() => undefined),
    [],
  );
});

test('names of chains tell the prefix, and fit', () => {
  const v4 = new AddressKeys('IPv4', 'KUBE-SVC-');
  const v6 = new AddressKeys('IPv6', 'KUBE-SVC-');
  assert.equal(v4.chainName(addressKey('10.96.0.0', 'TCP', 0).slice(0, 7)), 'KUBE-SVC-10.96.0.0/14');
  assert.equal(
    v4.chainName(addressKey('255.255.255.255', 'TCP', 0).slice(0, 16)),
    'KUBE-SVC-255.255.255.255/32',
  );
  assert.equal(v6.chainName(addressKey('fd77::1200', 'TCP', 0).slice(0, 60)), 'KUBE-SVC-fd77--1200/120');
  assert.match(v6.chainName(addressKey('2001:db8:1:2:3:4:5:6', 'TCP', 0)), /^KUBE-SVC-[A-Z2-7]{16}$/);
  assert.equal(
    new PortKeys('KUBE-SVC-').chainName(portKey('TCP', 30720).slice(0, 4)),
    'KUBE-SVC-tcp-30720/6',
  );
});
