import { existingTables, readChains, readTable, withXtablesLock } from '@kube-proxy-ts/netlink/xtables';

await withXtablesLock(() => {
  for (const name of existingTables('ip')) {
    for (const chain of readChains(readTable('ip', name))) {
      console.log(`${name} ${chain.name}: ${chain.rules.length} rules`);
    }
  }
});
