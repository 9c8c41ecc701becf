/**
 * A change takes several steps: transactions of nf_tables, messages to IPVS, addresses. Whatever a packet meets in between,
 * also when a step is taken while it is under way, it is treated as before the change or as afterwards.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NETLINK_NETFILTER, NetlinkSocket } from '@kube-proxy-ts/netlink';
import { Batch, NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace, missingNft } from '@kube-proxy-ts/netlink/testing';
import type { Endpoint, ServicePort } from '../../model/types.js';
import { addressBytes, serviceKey } from '../nft/keys.js';
import { sourceRangePrefix } from '../nft/source-range-rules.js';
import { maskAddress } from '../nft/source-ranges.js';
import { IpvsFamily } from './family.js';
import { sets } from './table/names.js';
import { FakeInterface, FakeIpvs } from './testing/fake-kernel.js';
import { address, endpoint, L1, R1, R2, servicePort } from './testing/service-ports.js';

const skip = enterNetworkNamespace() || missingNft();
const table = 'kube-proxy-ipvs';
const nodeIP = '100.64.10.11';

/** What the kernel holds between two steps. */
interface State {
  /** Elements by set: value by key. */
  readonly sets: ReadonlyMap<string, ReadonlyMap<string, number>>;
  /** Endpoints that get connections, by address and port or by mark. */
  readonly servers: ReadonlyMap<string, readonly string[]>;
  readonly addresses: ReadonlySet<string>;
}

class WatchedConnection extends NftablesConnection {
  onCommit: () => void = () => undefined;

  static override open(): WatchedConnection {
    return new WatchedConnection(NetlinkSocket.open(NETLINK_NETFILTER));
  }

  override commit(batch: Batch): void {
    super.commit(batch);
    this.onCommit();
  }
}

class Lab {
  readonly states: State[] = [];
  readonly family: IpvsFamily;
  private readonly nft = WatchedConnection.open();
  private readonly reader = NftablesConnection.open();
  private readonly ipvs = new FakeIpvs();
  private readonly addresses = new FakeInterface();
  private elements: State['sets'] = new Map();

  constructor() {
    this.clear();
    const executeAll = this.ipvs.executeAll.bind(this.ipvs);
    this.ipvs.executeAll = (commands) =>
      [...commands].flatMap((command) => {
        const refusals = executeAll([command]);
        this.note();
        return refusals;
      });
    const change = this.addresses.change.bind(this.addresses);
    this.addresses.change = (changes) =>
      changes.flatMap((one) => {
        const refusals = change([one]);
        this.note();
        return refusals;
      });
    this.nft.onCommit = () => {
      this.elements = this.read();
      this.note();
    };
    this.family = this.start();
  }

  start(): IpvsFamily {
    return new IpvsFamily(
      { nft: this.nft, ipvs: this.ipvs, observer: this.ipvs, addresses: this.addresses },
      {
        family: 'IPv4',
        masqueradeMark: 0x4000,
        masqueradeAll: false,
        detector: { kind: 'cidr', cidr: { ip: '10.61.0.0', prefixLength: 16 } },
        nodePortAddresses: 'all',
      },
      { scheduler: 'rr', excludeCIDRs: [], localAddresses: [nodeIP] },
    );
  }

  close(): void {
    this.clear();
    this.nft.close();
    this.reader.close();
  }

  private clear(): void {
    if (!this.reader.listTables('ip').some(({ name }) => name === table)) return;
    const batch = new Batch('ip', table);
    batch.deleteTable();
    this.reader.commit(batch);
  }

  private read(): State['sets'] {
    const found = new Map<string, Map<string, number>>();
    for (const { name } of this.reader.listSets('ip', table)) {
      const keys = new Map<string, number>();
      this.reader.listElements('ip', table, name, (key, value) => {
        keys.set(key.toString('latin1'), Buffer.isBuffer(value) ? value.readUInt32LE() : 0);
      });
      found.set(name, keys);
    }
    return found;
  }

  private note(): void {
    const servers = new Map<string, readonly string[]>();
    for (const { key } of this.ipvs.listServices()) {
      const live = this.ipvs.listDestinations(key).filter(({ settings }) => settings.weight > 0);
      servers.set(
        'fwmark' in key ? String(key.fwmark) : `${key.protocol} ${key.address} ${key.port}`,
        live.map(({ key: { address: ip, port } }) => `${ip}:${port}`),
      );
    }
    this.states.push({ sets: this.elements, servers, addresses: new Set(this.addresses.addresses) });
  }
}

interface Packet {
  readonly from: string;
  readonly isPod: boolean;
  readonly ip: string;
  readonly port: number;
}

/**
 * All fates of a packet.
 * @param states in which it may meet the first set; every further one it meets in the same or a later one
 */
function fates(states: readonly State[], packet: Packet): Set<string> {
  const found = new Set<string>();
  const id = serviceKey(packet.ip, 'TCP', packet.port);
  const isIn = (at: number, set: string, key = id): boolean => states[at]?.sets.get(set)?.has(key) === true;
  /** Carries on in every state from `from` on. */
  const each = (from: number, then: (at: number) => void): void => {
    for (let at = from; at < states.length; at++) then(at);
  };
  const byIpvs = (from: number, masquerade: boolean): void => {
    each(from, (marking) => {
      const mark = packet.isPod ? states[marking]?.sets.get('short-circuits')?.get(id) : undefined;
      each(marking, (at) => {
        const servers = states[at]?.servers;
        const endpoints = servers?.get(String(mark)) ?? servers?.get(`6 ${packet.ip} ${packet.port}`);
        if (endpoints === undefined) found.add('a process of this host');
        else if (endpoints.length === 0) found.add('refused');
        else
          for (const one of endpoints) {
            const returns = `${packet.from}:` === one.replace(/\d+$/, '');
            if (!returns) found.add(`${one}${masquerade ? ' masqueraded' : ''}`);
            else
              each(at, (behind) => {
                const hairpin = [...(states[behind]?.sets.get(sets.hairpin)?.keys() ?? [])].length > 0;
                found.add(`${one} itself${masquerade || hairpin ? ' masqueraded' : ''}`);
              });
          }
      });
    });
  };
  each(0, (a) => {
    if (packet.ip !== nodeIP && states[a]?.addresses.has(packet.ip) !== true) {
      found.add('nobody');
      return;
    }
    if (!isIn(a, sets.serviceIPs)) {
      each(a, (b) =>
        found.add(isIn(b, sets.boundIPs, addressBytes(packet.ip)) ? 'refused' : 'a process of this host'),
      );
      return;
    }
    const behindFirewall = (b: number): void => {
      each(b, (c) => {
        if (isIn(c, sets.rejectedIPs)) {
          found.add('refused');
          return;
        }
        each(c, (d) => {
          if (isIn(d, sets.localIPs)) {
            if (packet.isPod) byIpvs(d, false);
            else
              each(d, (e) => {
                if (isIn(e, sets.droppedLocalIPs)) found.add('dropped');
                else byIpvs(e, false);
              });
            return;
          }
          each(d, (e) => {
            if (isIn(e, sets.droppedIPs)) {
              found.add('dropped');
              return;
            }
            each(e, (f) => {
              byIpvs(f, isIn(f, sets.externalIPs) || !packet.isPod);
            });
          });
        });
      });
    };
    each(a, (b) => {
      if (!isIn(b, sets.firewallIPs)) {
        behindFirewall(b);
        return;
      }
      const lengths = [32, 24, 16, 8];
      const tryRange = (at: number, from: number): void => {
        const length = lengths[at];
        if (length === undefined) {
          found.add('dropped');
          return;
        }
        const key = maskAddress(addressBytes(packet.from), length) + id;
        each(from, (c) => {
          const set = [...(states[c]?.sets.keys() ?? [])].find((name) => sourceRangePrefix(name) === length);
          if (set !== undefined && isIn(c, set, key)) behindFirewall(c);
          else tryRange(at + 1, c);
        });
      };
      tryRange(0, b);
    });
  });
  return found;
}

const cluster = address();
const second = address({ port: 81 });
const vip = address({ kind: 'LoadBalancerIP', ip: '192.0.2.1', port: 443 });
const nodePort = address({ kind: 'NodePort', port: 31_080 });
const range = (ip: string, prefixLength: number) => [{ ip, prefixLength }];
const itself: Endpoint = endpoint('10.61.1.20:9000 local');

/** With the fallbacks that the model gives. */
function port(
  addresses: ServicePort['addresses'],
  endpoints: readonly Endpoint[],
  fields: Partial<ServicePort> = {},
): ServicePort {
  const localEndpoints = endpoints.filter(({ local }) => local);
  return servicePort({
    ...fields,
    addresses: addresses.map((one) => ({
      ...one,
      fallback:
        endpoints.length === 0
          ? 'reject'
          : one.policy === 'Local' && localEndpoints.length === 0
            ? 'drop'
            : 'serve',
    })),
    clusterEndpoints: endpoints,
    localEndpoints,
  });
}

const all = [cluster, vip, nodePort];
const localVip = { ...vip, policy: 'Local' as const };
const localNodePort = { ...nodePort, policy: 'Local' as const };
const other = { name: 'shop/other' };

const changes: Readonly<Record<string, readonly [before: ServicePort[], after: ServicePort[]]>> = {
  'a Service is made': [[], [port(all, [L1, R1])]],
  'a Service is deleted': [[port(all, [L1, R1])], []],
  'from none to two endpoints': [[port(all, [])], [port(all, [L1, R1])]],
  'from two endpoints to none': [[port(all, [L1, R1])], [port(all, [])]],
  'other endpoints': [[port(all, [L1, R1])], [port(all, [R1, R2])]],
  'entirely other endpoints': [[port(all, [L1, R1])], [port(all, [R2])]],
  'a new port of an old address': [
    [port([cluster], [R1])],
    [port([cluster], [R1]), port([second], [R2], other)],
  ],
  'policy Local: from no local endpoint to one': [
    [port([localVip, localNodePort], [R1])],
    [port([localVip, localNodePort], [R1, L1])],
  ],
  'policy Local: from one local endpoint to none': [
    [port([localVip, localNodePort], [R1, L1])],
    [port([localVip, localNodePort], [R1])],
  ],
  'policy Cluster becomes Local': [
    [port([vip, nodePort], [R1, L1])],
    [port([localVip, localNodePort], [R1, L1])],
  ],
  'policy Cluster becomes Local without local endpoints': [
    [port([vip, nodePort], [R1])],
    [port([localVip, localNodePort], [R1])],
  ],
  'policy Local becomes Cluster': [
    [port([localVip, localNodePort], [R1, L1])],
    [port([vip, nodePort], [R1, L1])],
  ],
  'policy Local without local endpoints becomes Cluster': [
    [port([localVip, localNodePort], [R1])],
    [port([vip, nodePort], [R1])],
  ],
  'source ranges are given': [
    [port([vip], [R1])],
    [port([{ ...vip, sourceRanges: range('198.51.100.0', 24) }], [R1])],
  ],
  'source ranges are taken away': [
    [port([{ ...vip, sourceRanges: range('198.51.100.0', 24) }], [R1])],
    [port([vip], [R1])],
  ],
  'a source range grows': [
    [port([{ ...vip, sourceRanges: range('198.51.100.0', 24) }], [R1])],
    [port([{ ...vip, sourceRanges: range('198.0.0.0', 8) }], [R1])],
  ],
  'a Service with source ranges is deleted': [
    [port([{ ...vip, sourceRanges: range('198.51.100.0', 24) }], [R1])],
    [],
  ],
  'addresses move to another Service': [[port(all, [L1, R1])], [port(all, [R2], other)]],
  'addresses move to a Service without endpoints': [[port(all, [L1, R1])], [port(all, [], other)]],
  'addresses move from a Service without endpoints': [[port(all, [])], [port(all, [R2], other)]],
  'an address moves away from source ranges': [
    [port([{ ...vip, sourceRanges: range('198.51.100.0', 24) }], [R1])],
    [port([vip], [R2], other)],
  ],
  'a pod that calls itself comes': [[port([cluster], [R1])], [port([cluster], [R1, itself])]],
  'a pod that calls itself goes': [[port([cluster], [R1, itself])], [port([cluster], [R1])]],
  'affinity is turned on': [[port(all, [R1])], [port(all, [R1], { affinitySeconds: 600 })]],
};

const sources: readonly (readonly [name: string, from: string, isPod: boolean])[] = [
  ['pod', '10.61.1.20', true],
  ['outside', '198.51.100.7', false],
  ['stranger', '203.0.113.200', false],
];
const targets: readonly (readonly [ip: string, port: number])[] = [
  ['10.96.0.1', 80],
  ['10.96.0.1', 81],
  ['192.0.2.1', 443],
  [nodeIP, 31_080],
];

/**
 * @param states from the one before the change to the one behind it
 * @param alsoRight fates that are right in between
 */
function assertOldOrNew(states: readonly State[], alsoRight: readonly string[]): void {
  const [begin, end] = [states[0], states.at(-1)];
  assert.ok(begin && end);
  for (const [name, from, isPod] of sources) {
    for (const [ip, port] of targets) {
      const packet = { from, isPod, ip, port };
      const allowed = new Set([...fates([begin], packet), ...fates([end], packet), ...alsoRight]);
      for (let at = 0; at < states.length; at++) {
        for (const found of fates(states.slice(at, at + 2), packet)) {
          assert.ok(
            allowed.has(found),
            `${name} to ${ip}:${port}, step ${at} of ${states.length - 1}: ${found}, where only ${[...allowed].join(' or ')} is right`,
          );
        }
      }
    }
  }
}

for (const [title, [before, after]] of Object.entries(changes)) {
  describe(title, { skip }, () => {
    // A Service that is about to come, or to go, has no endpoints meanwhile.
    const alsoRight = before.length === after.length ? [] : ['refused'];
    const gone = before.map(({ key }) => key).filter((key) => after.every((one) => one.key !== key));

    test('a change', async (context) => {
      const lab = new Lab();
      context.after(() => {
        lab.close();
      });
      await lab.family.resync(before);
      const from = lab.states.length - 1;
      const report = await lab.family.apply({ family: 'IPv4', upserted: after, removed: gone });
      assert.deepEqual(report.failures, []);
      await lab.family.deleteDeferred(Infinity);
      assertOldOrNew(lab.states.slice(from), alsoRight);
    });

    test('a process that starts over', async (context) => {
      const lab = new Lab();
      context.after(() => {
        lab.close();
      });
      await lab.family.resync(before);
      const from = lab.states.length - 1;
      const second = lab.start();
      assert.deepEqual((await second.resync(after)).failures, []);
      await second.deleteDeferred(Infinity);
      assertOldOrNew(lab.states.slice(from), alsoRight);
    });
  });
}

test('in a large change every address is always somebody’s', { skip }, async (context) => {
  const lab = new Lab();
  context.after(() => {
    lab.close();
  });
  const count = 1_000;
  const many = (name: string, shift: number, host: Endpoint): ServicePort[] =>
    Array.from({ length: count }, (_, number) => {
      const at = (number + shift) % count;
      return port([address({ ip: `10.96.${at >> 8}.${at & 255}` })], [host], { name: `${name}/s${number}` });
    });
  let last = many('old', 0, R1);
  await lab.family.resync(last);
  for (const next of [many('old', 300, R1), many('new', 0, R2)]) {
    const from = lab.states.length - 1;
    const removed = last.map(({ key }) => key).filter((key) => next.every((one) => one.key !== key));
    await lab.family.apply({ family: 'IPv4', upserted: next, removed });
    for (const state of lab.states.slice(from)) {
      for (let at = 0; at < count; at += 97) {
        const packet = { from: '10.61.1.20', isPod: true, ip: `10.96.${at >> 8}.${at & 255}`, port: 80 };
        for (const found of fates([state], packet)) assert.match(found, /:9000$/, packet.ip);
      }
    }
    last = next;
  }
});
