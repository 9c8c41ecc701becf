/** What every Prometheus client tells of its process, under the names of the Go client (its process collector). */
import { readdirSync, readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import type { Catalogue } from './catalogue.js';

/** Unix time, seconds. */
export const processStart = performance.timeOrigin / 1000;

export function defineProcessMetrics(catalogue: Catalogue): void {
  const stability = undefined;
  catalogue.counter({
    name: 'process_cpu_seconds_total',
    help: 'Processor time used, user and system, in seconds',
    stability,
    collect: (metric) => {
      const { user, system } = process.cpuUsage();
      metric.reset();
      metric.inc((user + system) / 1e6);
    },
  });
  const gauge = (name: string, help: string, read: () => number): void => {
    catalogue.gauge({
      name,
      help,
      stability,
      collect: (metric) => {
        metric.set(orUnknown(read));
      },
    });
  };
  gauge('process_start_time_seconds', 'Unix time at which the process started', () => processStart);
  gauge('process_resident_memory_bytes', 'Resident memory', () => process.memoryUsage.rss());
  gauge(
    'process_virtual_memory_bytes',
    'Virtual memory',
    () => Number(/^VmSize:\s+(\d+) kB$/m.exec(proc('status'))?.[1]) * 1024,
  );
  gauge('process_virtual_memory_max_bytes', 'Virtual memory that the process may use', () =>
    limit('Max address space'),
  );
  // The folder itself is open while it is read.
  gauge('process_open_fds', 'Open file descriptors', () => readdirSync('/proc/self/fd').length - 1);
  gauge('process_max_fds', 'File descriptors that may be open', () => limit('Max open files'));
  const traffic = (name: string, help: string, field: string): void => {
    catalogue.counter({
      name,
      help,
      stability,
      collect: (metric) => {
        metric.reset();
        metric.inc(orUnknown(() => ipExtension(field)));
      },
    });
  };
  traffic(
    'process_network_receive_bytes_total',
    'Bytes received by the network namespace of the process',
    'InOctets',
  );
  traffic(
    'process_network_transmit_bytes_total',
    'Bytes sent by the network namespace of the process',
    'OutOctets',
  );
}

/** NaN is not shown. */
function orUnknown(read: () => number): number {
  try {
    return read();
  } catch {
    return NaN;
  }
}

function proc(file: string): string {
  return readFileSync(`/proc/self/${file}`, 'utf8');
}

/** Soft limit; 'unlimited' is the largest number of 64 bits, as in the Go client. */
function limit(name: string): number {
  const text = new RegExp(`^${name}\\s+(\\S+)`, 'm').exec(proc('limits'))?.[1];
  return text === 'unlimited' ? 2 ** 64 : Number(text);
}

/** A field of the two IpExt lines (names, values) of net/netstat. */
function ipExtension(field: string): number {
  const [names = [], values = []] = proc('net/netstat')
    .split('\n')
    .filter((line) => line.startsWith('IpExt:'))
    .map((line) => line.split(' '));
  return Number(values[names.indexOf(field)]);
}
