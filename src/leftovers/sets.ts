/** Removes ipsets. */
import { IpsetConnection } from '@kube-proxy-ts/netlink/ipset';
import { count, type Report } from '../backends/removal-report.js';

/** Call it after the rules that match against them are gone. */
export async function removeSets(own: ReadonlySet<string>, report: Report): Promise<void> {
  const what = 'ipsets of kube-proxy';
  await report.attempt(what, () => {
    const sets = IpsetConnection.openIfLoaded();
    if (sets === undefined) {
      report.absent(what);
      return;
    }
    try {
      const ours = sets.listNames().filter((name) => own.has(name));
      const outcomes = ours.map((name) => ({ name, outcome: sets.destroy(name) }));
      const destroyed = outcomes.filter(({ outcome }) => outcome !== 'busy');
      if (destroyed.length > 0)
        report.removed(`${count(destroyed.length, 'ipset')}: ${destroyed.map(({ name }) => name).join(' ')}`);
      for (const { name, outcome } of outcomes)
        if (outcome === 'busy') report.kept(`ipset ${name}`, "a rule that is not kube-proxy's uses it");
      if (ours.length === 0) report.absent(what);
    } finally {
      sets.close();
    }
  });
}
