/** Two-way tables between the kernel's numbers and our names. */
export class Enumeration<Name extends string> {
  private readonly names = new Map<number, Name>();

  constructor(private readonly values: Readonly<Record<Name, number>>) {
    for (const name of Object.keys(values) as Name[]) this.names.set(values[name], name);
  }

  value(name: Name): number {
    return this.values[name];
  }

  /** undefined: a number that this library has no name for. */
  name(value: number): Name | undefined {
    return this.names.get(value);
  }
}

/** Like Enumeration for sets of bits. */
export class Flags<Name extends string> {
  constructor(private readonly bits: Readonly<Record<Name, number>>) {}

  value(names: readonly Name[]): number {
    return names.reduce((sum, name) => sum | this.bits[name], 0);
  }

  /** In the order of the table; undefined when a bit has no name. */
  names(value: number): Name[] | undefined {
    const names = (Object.keys(this.bits) as Name[]).filter((name) => (value & this.bits[name]) !== 0);
    return this.value(names) === value >>> 0 || this.value(names) === value ? names : undefined;
  }
}
