/**
 * One random sequence of faults and changes, and what has to hold: at no time is something missing that existed all
 * along, nothing is delivered that was never true, and in the end the state is that of a fresh start.
 */
import type { ContentType } from '../../src/sources/kube/resources.js';
import { ApiServerSource, type ApiSourceOptions } from '../../src/sources/kube/source.js';
import { silentLogger, type LogFields, type Logger } from '../../src/log/logger.js';
import type { ModelChanges } from '../../src/model/types.js';
import { Random } from '@kube-proxy-ts/netlink/testing';
import type { ApiServer, ApiServerOptions } from '../apiserver/server.js';
import { strike } from '../apiserver/strikes.js';
import { catalogue } from './catalogue.js';
import { Cluster, nodeName } from './cluster.js';
import { Witness } from './witness.js';

/** The time that a sequence lives in. */
export interface Clock {
  pass(ms: number): Promise<void>;
  /** @returns whether it became so within so many milliseconds */
  until(isSo: () => boolean, ms: number): Promise<boolean>;
}

/** Where a sequence takes place. */
export interface Setting {
  readonly clock: Clock;
  readonly source: Pick<ApiSourceOptions, 'timings' | 'timeouts' | 'gzip'>;
  /** How long things last that are given in the catalogue, and the pauses in between: times so much. */
  readonly scale: number;
  /** By then all is well again, milliseconds. */
  readonly endMs: number;
  open(server: ApiServerOptions): Promise<ApiServer>;
  connection(server: ApiServer): Pick<ApiSourceOptions, 'connection' | 'dial'>;
}

export interface Outcome {
  readonly seed: number;
  /** What happened, in order; to be shown when something went wrong. */
  readonly story: readonly string[];
  readonly violations: readonly string[];
  /** Faults that were used. */
  readonly used: readonly string[];
}

export interface SequenceOptions {
  readonly setting: Setting;
  /** Receives what a dataplane would. */
  readonly program?: (changes: ModelChanges) => void;
  /** Waits until all of that is programmed. @returns what is wrong with it */
  readonly settle?: () => Promise<readonly string[]>;
}

export async function runSequence(
  seed: number,
  { setting, program, settle }: SequenceOptions,
): Promise<Outcome> {
  const { clock, scale, endMs } = setting;
  const random = new Random(seed);
  const pick = <T>(...values: readonly T[]): T => {
    const value = values[random.below(values.length)];
    if (value === undefined) throw new Error('nothing to choose from');
    return value;
  };
  const serverOptions: ApiServerOptions = {
    streamingLists: pick('on', 'on', 'on', 'refused', 'invalid', 'ignored'),
    protobuf: pick('on', 'on', 'on', 'off', 'refused'),
    gzipFrom: pick(1, 1_000_000),
    http2: pick(true, false),
    bookmarkMs: 30 * scale,
  };
  const sourceOptions: Pick<ApiSourceOptions, 'contentType' | 'pageSize'> = {
    contentType: pick<ContentType>('protobuf', 'protobuf', 'json'),
    pageSize: pick(2, 3, 500),
  };
  const story: string[] = [];
  const used: string[] = [];
  const tell = (what: string): void => void story.push(`${seconds(performance.now() - started)} ${what}`);
  const started = performance.now();
  tell(JSON.stringify({ ...serverOptions, ...sourceOptions }));
  const server = await setting.open(serverOptions);
  const cluster = new Cluster(server, random);
  const witness = new Witness(cluster, program);
  const source = new ApiServerSource(
    { ...setting.connection(server), nodeName, ...setting.source, ...sourceOptions },
    witness,
    logInto(tell),
  );
  try {
    // A second one could be overtaken by versions of the history before, which nobody can tell from the new ones: that is why
    // a restored etcd has to have its revision raised (etcdutl snapshot restore --bump-revision).
    let backup: 'possible' | 'made' | 'used' = 'possible';
    let mayBeWrong = true;
    // Most begin when all is well.
    if (random.below(4) > 0) {
      source.start();
      if (!(await clock.until(() => witness.begun, endMs))) throw new Error('it did not begin');
    }
    for (let steps = 5 + random.below(6); steps > 0; steps--) {
      if (random.below(3) > 0) {
        for (let i = random.below(3); i >= 0; i--) cluster.change();
        tell('changes');
      }
      if (backup === 'possible' && random.below(8) === 0) {
        strike(server, { kind: 'backup' });
        backup = 'made';
        cluster.change();
        tell('backup');
      } else if (backup === 'made' && random.below(6) === 0) {
        strike(server, { kind: 'restore' });
        cluster.restored = true;
        backup = 'used';
        used.push('a database set back');
        tell('restored');
      }
      const name = pick(...Object.keys(catalogue));
      const trouble = catalogue[name]?.(random, scale);
      // One list that says that something is not there is asked for again; who says so twice is believed.
      const isWrong = name === 'an empty list' || name === 'a list with a nameless item';
      if (trouble !== undefined && (!isWrong || mayBeWrong)) {
        if (isWrong) mayBeWrong = false;
        used.push(name);
        tell(`${name} ${JSON.stringify(trouble)}`);
        if ('arm' in trouble) server.faults.arm(trouble.arm, trouble);
        else if ('strike' in trouble) strike(server, trouble.strike);
        else server.bookmark();
      }
      source.start();
      // Mostly short, seldom as long as a watch lives.
      const rest = random.below(pick(8, 8, 8, 60, 60, 400));
      if (rest > 0) await clock.pass(rest * scale);
    }
    source.start();
    server.heal();
    tell('healed');
    const wanted = await freshPicture(server, setting);
    const inTime = await clock.until(() => witness.begun && witness.picture() === wanted, endMs);
    const wrong = inTime
      ? []
      : [
          `not the state of a fresh start:\n${witness.picture()}\nbut\n${wanted}`,
          JSON.stringify(source.health(), null, 1),
        ];
    const programmed = (await settle?.()) ?? [];
    return { seed, story, used, violations: [...witness.violations, ...wrong, ...programmed] };
  } catch (error) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return { seed, story, used, violations: [...witness.violations, what] };
  } finally {
    await stop(source, setting);
    await server.close();
  }
}

/** The state as a start that nothing disturbs finds it. */
export async function freshPicture(server: ApiServer, setting: Setting): Promise<string> {
  const witness = new Witness(undefined);
  const source = new ApiServerSource(
    {
      ...setting.connection(server),
      nodeName,
      ...setting.source,
      contentType: 'json',
    },
    witness,
    silentLogger,
  );
  source.start();
  try {
    const all = (): boolean =>
      Object.values(source.status()).every(({ synced, watching }) => synced && watching) && witness.begun;
    if (!(await setting.clock.until(all, setting.endMs))) {
      throw new Error(`no fresh start: ${JSON.stringify(source.health())}`);
    }
    return witness.picture();
  } finally {
    await stop(source, setting);
  }
}

/** It takes time, though little. */
export async function stop(source: ApiServerSource, { clock, endMs }: Setting): Promise<void> {
  let stopped = false;
  void source.stop().then(() => {
    stopped = true;
  });
  if (!(await clock.until(() => stopped, endMs))) throw new Error('the source does not stop');
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(3).padStart(9)} s`;
}

function logInto(tell: (what: string) => void): Logger {
  const say = (level: string) => (message: string, fields?: LogFields) => {
    tell(`  ${level} ${message} ${JSON.stringify(fields ?? {})}`);
  };
  const log: Logger = {
    info: say('I'),
    warn: say('W'),
    error: (message, error, fields) => {
      tell(`  E ${message}: ${error instanceof Error ? error.message : ''} ${JSON.stringify(fields ?? {})}`);
    },
    debug: (_, message, fields) => {
      tell(`  D ${message} ${JSON.stringify(fields ?? {})}`);
    },
    named: () => log,
  };
  return log;
}
