/** What the kernel and the tool can do beyond what this mode can't do without; found out by trying. */
import type { ServicePort } from '../../../model/types.js';
import { IptablesError } from './errors.js';
import { rejectWith } from '../rules/desired-rules.js';
import { sameAddressMatch, type Abilities } from '../rules/layout.js';
import { chains, counters, type TableName } from '../rules/names.js';
import type { Saved } from './saved.js';
import type { IptablesTool } from './tool.js';
import { endTrials, rejectionOf } from './trial.js';

/** What only some Services need. */
type Feature = 'recent' | 'sctp';

const features: Readonly<Record<Feature, { readonly rule: string; readonly missing: string }>> = {
  recent: {
    rule: `-m recent --rcheck --name ${chains.probe}`,
    missing: 'sessionAffinity: ClientIP needs the match recent (module xt_recent)',
  },
  sctp: {
    rule: '-p sctp -m sctp --dport 1',
    missing: 'SCTP needs the match sctp (module xt_sctp)',
  },
};

/** Services that need what is missing come in thousands, and are tried again together: once is enough for all of them. */
const rememberedMs = 10_000;

export class AbilityTrials {
  private readonly features = new Set<Feature>();
  /** Features that were missing, and until when that counts, performance.now(). */
  private readonly missing = new Map<Feature, number>();

  constructor(private readonly tool: IptablesTool) {}

  /**
   * @param saved what the kernel holds: what is in use need not be tried
   * @param existing counters that are in the kernel
   */
  async find(saved: Saved, existing: ReadonlySet<string>): Promise<Abilities> {
    const { tool } = this;
    const can = new Set<string>();
    const open = new Map<string, string>();
    const note = (name: string, rule: string, known: boolean): void => {
      if (known) can.add(name);
      else open.set(name, rule);
    };
    const bpf = sameAddressMatch(tool.family);
    note('bpf', bpf, saved.mentions('nat', chains.postrouting, bpf));
    for (const name of existing) {
      const rule = `-m nfacct --nfacct-name ${name}`;
      const inForward = name === counters.invalidDropped;
      note(
        name,
        rule,
        saved.mentions(inForward ? 'filter' : 'nat', inForward ? chains.forward : chains.postrouting, name),
      );
    }
    if (open.size > 0 && (await this.accepts([...open.values()])))
      for (const name of open.keys()) can.add(name);
    else for (const [name, rule] of open) if (await this.accepts([rule])) can.add(name);
    return {
      bpf: can.has('bpf'),
      reject: await this.canReject(saved),
      randomFully: tool.hasRandomFully,
      counters: can,
    };
  }

  /** The target works in table filter alone. */
  private async canReject(saved: Saved): Promise<boolean> {
    const rule = `-j REJECT --reject-with ${rejectWith[this.tool.family]}`;
    return (
      saved.mentions('filter', chains.services, '-j REJECT') ||
      saved.mentions('filter', chains.externalServices, '-j REJECT') ||
      (await this.accepts([rule], 'filter'))
    );
  }

  /** Why a service port can't be programmed here; undefined: it can. */
  async lacking(port: ServicePort): Promise<IptablesError | undefined> {
    const needs: Feature[] = [];
    if (port.affinitySeconds > 0) needs.push('recent');
    if (port.protocol === 'SCTP') needs.push('sctp');
    for (const feature of needs) {
      if (this.features.has(feature)) continue;
      if (!(await this.has(feature))) {
        return new IptablesError(
          'IPTABLES_KERNEL',
          `${features[feature].missing}, and the kernel or ${this.tool.description} lacks it`,
        );
      }
    }
    return undefined;
  }

  private async has(feature: Feature): Promise<boolean> {
    if (performance.now() < (this.missing.get(feature) ?? -Infinity)) return false;
    if (await this.accepts([features[feature].rule])) {
      this.features.add(feature);
      this.missing.delete(feature);
      return true;
    }
    this.missing.set(feature, performance.now() + rememberedMs);
    return false;
  }

  /** Table mangle is small, whatever the Services: with the legacy kind every change costs the whole table. */
  private async accepts(rules: readonly string[], table: TableName = 'mangle'): Promise<boolean> {
    const rejection = await rejectionOf(this.tool, [[table, rules]]);
    await endTrials(this.tool, [table]);
    return rejection === undefined;
  }
}
