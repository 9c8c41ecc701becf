/** kube-ipvs0 in the kernel: a dummy interface that stays down, holds addresses and carries no packets. */
import { type Family, NetlinkError, type Rejection } from '@kube-proxy-ts/netlink';
import type { RouteConnection } from '@kube-proxy-ts/netlink/rtnetlink';
import type { AddressChange, ServiceInterface } from './kernel.js';
import { serviceInterface } from './table/names.js';

export class ServiceInterfaceError extends Error {
  readonly code = 'ERR_IPVS_INTERFACE';
}

export class KernelServiceInterface implements ServiceInterface {
  private index = 0;

  constructor(
    private readonly route: RouteConnection,
    private readonly family: Family,
  ) {}

  /** @throws ServiceInterfaceError when the name is taken by another kind of interface, or the kernel has no dummies */
  open(): readonly string[] {
    const found = this.route.findLink(serviceInterface) ?? this.make();
    if (found.kind !== 'dummy') {
      throw new ServiceInterfaceError(
        `interface ${serviceInterface} is of kind ${found.kind ?? 'unknown'}, not dummy: remove or rename it, its name belongs to mode ipvs`,
      );
    }
    this.index = found.index;
    return this.route
      .listAddresses(this.family)
      .filter(({ interfaceIndex, scope }) => interfaceIndex === found.index && scope !== 'link')
      .map(({ address }) => address);
  }

  change(changes: readonly AddressChange[]): Rejection[] {
    return this.route.changeAddresses(
      changes.map((change) => ({
        do: change.do,
        family: this.family,
        address: change.ip,
        prefixLength: this.family === 'ip' ? 32 : 128,
        interfaceIndex: this.index,
      })),
    );
  }

  close(): void {
    this.route.close();
  }

  private make() {
    try {
      this.route.addDummyLink(serviceInterface);
    } catch (error) {
      // The other family's dataplane may have been first.
      if (error instanceof NetlinkError && error.code !== 'EEXIST') {
        throw new ServiceInterfaceError(
          `cannot make interface ${serviceInterface}: load the module with 'modprobe dummy' (${error.message})`,
          { cause: error },
        );
      }
      if (!(error instanceof NetlinkError)) throw error;
    }
    const made = this.route.findLink(serviceInterface);
    if (made === undefined)
      throw new ServiceInterfaceError(`interface ${serviceInterface} was deleted by another program`);
    return made;
  }
}
