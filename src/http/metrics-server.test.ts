/** The metrics server over real HTTP (observability.md section 3): status, headers and body of every path. */
import assert from 'node:assert/strict';
import { get as httpGet, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { parse as parseYaml } from 'yaml';
import { closeServer, listen } from '../health/listen.js';
import { createMetrics } from '../metrics/metrics.js';
import { Slis } from '../metrics/slis.js';
import { parseTextFormat } from '../metrics/testing/text-format.js';
import { metricsServer } from './metrics-server.js';
import { hours, unixDate } from './statusz.js';

const verbosities: number[] = [];
const metrics = createMetrics();
const servers: Server[] = [];
/** With everything switched on; with nothing that can be left away. */
const urls = { full: '', bare: '' };

before(async () => {
  const mode = (): { mode: string; reason: string } => ({ mode: 'nftables', reason: 'as configured\n…' });
  const handlers = {
    full: metricsServer({
      metrics,
      slis: new Slis(),
      mode,
      configz: () => '{"kubeproxy.config.k8s.io":{"kind":"KubeProxyConfiguration"}}',
      flagz: () =>
        new Map([
          ['v', '2'],
          ['config', ''],
        ]),
      statusz: { binary: '1.37.2', emulation: '1.37' },
      profiling: { setVerbosity: (verbosity) => verbosities.push(verbosity) },
    }),
    bare: metricsServer({ metrics, slis: new Slis(), mode }),
  };
  for (const name of ['full', 'bare'] as const) {
    const server = await listen({ host: '127.0.0.1', port: 0 }, handlers[name]);
    servers.push(server);
    urls[name] = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }
});
after(() => {
  for (const server of servers) {
    closeServer(server);
    server.closeAllConnections();
  }
});

const plain = 'text/plain; charset=utf-8';
const html = 'text/html; charset=utf-8';
const json = 'application/json';
const missing = '404 page not found\n';

const pages: [path: string, status: number, type: string, body: string | RegExp][] = [
  ['/healthz', 200, plain, 'ok'],
  ['/healthz?verbose', 200, plain, '[+]ping ok\nhealthz check passed\n'],
  ['/healthz?exclude=ping', 200, plain, 'ok'],
  ['/healthz?exclude=ping&verbose', 200, plain, '[+]ping excluded: ok\nhealthz check passed\n'],
  [
    '/healthz?exclude=x&verbose&exclude=a',
    200,
    plain,
    '[+]ping ok\nwarn: some health checks cannot be excluded: no matches for "a","x"\nhealthz check passed\n',
  ],
  ['/healthz/ping', 200, plain, 'ok'],
  ['/healthz/other', 404, plain, missing],
  ['/proxyMode', 200, plain, 'nftables'],
  ['/proxyMode/', 404, plain, missing],
  ['/livez', 404, plain, missing],
  ['/', 404, plain, missing],
  ['/configz', 200, json, '{"kubeproxy.config.k8s.io":{"kind":"KubeProxyConfiguration"}}'],
  ['/debug/pprof/', 200, html, /<a href="profile">profile<\/a>: .*\.cpuprofile/],
  ['/debug/pprof/goroutine', 404, plain, 'Unknown profile\n'],
  ['/debug/pprof/symbol', 200, plain, 'num_symbols: 0\n'],
  ['/debug/pprof/profile?seconds=100000', 400, plain, 'seconds: 100000: at most 300\n'],
  ['/debug/flags', 200, html, /<a href="\/debug\/flags\/v">v<\/a>/],
  ['/debug/flags/', 200, html, /<a href="\/debug\/flags\/v">v<\/a>/],
  ['/debug/other', 404, plain, missing],
];
for (const [path, status, type, body] of pages) {
  for (const method of ['GET', 'HEAD', 'POST']) {
    test(`${method} ${path}: ${status}`, async () => {
      const response = await fetch(urls.full + path, { method });
      const text = await response.text();
      assert.equal(response.status, status);
      assert.equal(response.headers.get('content-type'), type);
      assert.equal(response.headers.get('x-content-type-options'), 'nosniff');
      if (method === 'HEAD') assert.equal(text, '');
      else if (typeof body === 'string') assert.equal(text, body);
      else assert.match(text, body);
      if (typeof body === 'string')
        assert.equal(response.headers.get('content-length'), String(Buffer.byteLength(body)));
    });
  }
}

test('what is switched off is not there', async () => {
  for (const path of ['/configz', '/flagz', '/statusz', '/debug/pprof', '/debug/pprof/', '/debug/flags/v']) {
    const response = await fetch(urls.bare + path);
    assert.equal(response.status, 404, path);
    assert.equal(await response.text(), missing);
  }
  assert.equal((await fetch(`${urls.bare}/proxyMode`)).status, 200);
});

test('/proxyMode says why, in a header', async () => {
  const { headers } = await fetch(`${urls.full}/proxyMode`);
  assert.equal(headers.get('x-kube-proxy-mode-reason'), 'as configured');
});

describe('/metrics', () => {
  /** As it comes: fetch would decompress. */
  const raw = (path: string, encoding: string) =>
    new Promise<{ headers: IncomingHttpHeaders; body: Buffer }>((resolve, reject) => {
      httpGet(urls.full + path, { headers: { 'accept-encoding': encoding } }, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => {
          resolve({ headers: response.headers, body: Buffer.concat(chunks) });
        });
      }).on('error', reject);
    });

  const encodings: [accepts: string, compressed: boolean][] = [
    ['', false],
    ['identity', false],
    ['gzip', true],
    ['deflate, gzip;q=0.5', true],
    ['gzip;q=0', false],
    ['gzipped', false],
  ];
  for (const [accepts, compressed] of encodings) {
    test(`with Accept-Encoding '${accepts}' it is ${compressed ? '' : 'not '}compressed`, async () => {
      const { headers, body } = await raw('/metrics', accepts);
      assert.equal(headers['content-encoding'], compressed ? 'gzip' : undefined);
      assert.equal(headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8; escaping=underscores');
      assert.match(headers['process-start-time-unix'] as string, /^\d{10}$/);
      const families = parseTextFormat((compressed ? gunzipSync(body) : body).toString());
      const started = families.get('process_start_time_seconds')?.samples[0]?.value ?? 0;
      assert.equal(Math.floor(started), Number(headers['process-start-time-unix']));
    });
  }

  test('that can not be collected: 500 with the reason, and the next one is fine', async () => {
    const gauge = metrics.registry.getSingleMetric('process_open_fds') as unknown as { collect: () => void };
    const { collect } = gauge;
    gauge.collect = () => {
      throw new Error('a collector failed');
    };
    const response = await fetch(`${urls.full}/metrics`);
    gauge.collect = collect;
    assert.equal(response.status, 500);
    assert.equal(response.headers.get('content-type'), plain);
    assert.equal(await response.text(), 'a collector failed\n');
    assert.equal((await fetch(`${urls.full}/metrics`)).status, 200);
  });
});

test('/metrics/slis counts what /healthz was asked, and DELETE resets it', async () => {
  const count = async (): Promise<number | undefined> => {
    const response = await fetch(`${urls.full}/metrics/slis`);
    assert.equal(response.headers.get('content-type')?.startsWith('text/plain; version=0.0.4'), true);
    return parseTextFormat(await response.text()).get('kubernetes_healthchecks_total')?.samples[0]?.value;
  };
  const reset = await fetch(`${urls.full}/metrics/slis`, { method: 'DELETE' });
  assert.equal(reset.status, 200);
  assert.equal(reset.headers.get('content-type'), plain);
  assert.equal(await reset.text(), 'metrics reset\n');
  assert.equal(await count(), undefined);
  for (const path of ['/healthz', '/healthz?verbose', '/healthz?exclude=ping', '/healthz/ping'])
    await fetch(urls.full + path);
  assert.equal(await count(), 2, 'runs of the check by /healthz');
});

describe('/debug', () => {
  test('/debug/pprof leads to its index', async () => {
    const response = await fetch(`${urls.full}/debug/pprof`, { redirect: 'manual' });
    assert.equal(response.status, 302);
    assert.equal(response.headers.get('location'), '/debug/pprof/');
  });

  const profiles: [path: string, file: string, check: (text: string) => void][] = [
    [
      'profile?seconds=0.05',
      'kube-proxy.cpuprofile',
      (text) => {
        const profile = JSON.parse(text) as { nodes: unknown[]; samples: number[]; timeDeltas: number[] };
        assert.ok(profile.nodes.length > 1);
        assert.equal(profile.samples.length, profile.timeDeltas.length);
      },
    ],
    [
      'heap?seconds=0.05',
      'kube-proxy.heapprofile',
      (text) => {
        assert.ok('callFrame' in (JSON.parse(text) as { head: object }).head);
      },
    ],
    [
      'trace?seconds=0.05',
      'kube-proxy.trace.json',
      (text) => {
        const { traceEvents } = JSON.parse(text) as { traceEvents: { ph: string; ts: number }[] };
        assert.ok(traceEvents.length > 0);
        assert.ok(traceEvents.every(({ ph, ts }) => ph.length === 1 && Number.isFinite(ts)));
      },
    ],
    [
      'heapsnapshot',
      'kube-proxy.heapsnapshot',
      (text) => {
        assert.ok('snapshot' in (JSON.parse(text) as object));
      },
    ],
  ];
  for (const [path, file, check] of profiles) {
    test(`/debug/pprof/${path}`, async () => {
      const response = await fetch(`${urls.full}/debug/pprof/${path}`);
      assert.equal(response.status, 200);
      assert.equal(response.headers.get('content-disposition'), `attachment; filename="${file}"`);
      check(await response.text());
    });
  }

  test('one profile at a time, and one whose client has gone ends', async () => {
    const abort = new AbortController();
    const first = fetch(`${urls.full}/debug/pprof/profile?seconds=60`, { signal: abort.signal });
    let second = await fetch(`${urls.full}/debug/pprof/profile?seconds=0.01`);
    while (second.status === 200) second = await fetch(`${urls.full}/debug/pprof/profile?seconds=0.01`);
    assert.equal(second.status, 500);
    assert.match(await second.text(), /another profile is being taken/);
    abort.abort();
    await assert.rejects(first);
    while (second.status === 500) {
      second = await fetch(`${urls.full}/debug/pprof/profile?seconds=0.01`);
      await second.text();
    }
    assert.equal(second.status, 200);
  });

  const max = 2 ** 31 - 1;
  const puts: [method: string, body: string | undefined, status: number, answer: string | RegExp][] = [
    ['PUT', '4', 200, 'successfully set klog.logging.verbosity to 4\n'],
    ['PUT', String(max), 200, `successfully set klog.logging.verbosity to ${max}\n`],
    ['PUT', String(max + 1), 400, /not a number from 0 to 2147483647\n$/],
    ['PUT', '-1', 400, /"-1": not a number/],
    ['PUT', 'debug', 400, /"debug": not a number/],
    ['PUT', '', 400, /"": not a number/],
    ['PUT', '1'.repeat(100), 400, 'the body is longer than 64 bytes\n'],
    ['POST', '4', 406, 'unsupported http method\n'],
    ['GET', undefined, 406, 'unsupported http method\n'],
  ];
  for (const [method, body, status, answer] of puts) {
    test(`${method} /debug/flags/v ${body?.slice(0, 12) ?? ''}: ${status}`, async () => {
      verbosities.length = 0;
      const response = await fetch(`${urls.full}/debug/flags/v`, {
        method,
        ...(body === undefined ? {} : { body }),
      });
      assert.equal(response.status, status);
      assert.equal(response.headers.get('content-type'), 'text/plain');
      assert.equal(response.headers.get('x-content-type-options'), 'nosniff');
      const text = await response.text();
      if (typeof answer === 'string') assert.equal(text, answer);
      else assert.match(text, answer);
      assert.deepEqual(verbosities, status === 200 ? [Number(body)] : []);
    });
  }
});

describe('/flagz and /statusz', () => {
  const ask = async (path: string, accept: string) => {
    const response = await new Promise<{ status: number; headers: IncomingHttpHeaders; body: string }>(
      (resolve, reject) => {
        // fetch would ask for */* where nothing is asked for.
        httpGet(urls.full + path, { headers: accept === 'absent' ? {} : { accept } }, (message) => {
          let body = '';
          message.setEncoding('utf8').on('data', (text: string) => (body += text));
          message.on('end', () => {
            resolve({ status: message.statusCode ?? 0, headers: message.headers, body });
          });
        }).on('error', reject);
      },
    );
    return response;
  };
  const wanted = (kind: string, version = 'v1beta1', type = 'application/json'): string =>
    `${type};v=${version};g=config.k8s.io;as=${kind}`;

  for (const kind of ['Flagz', 'Statusz']) {
    const path = `/${kind.toLowerCase()}`;
    const other = kind === 'Flagz' ? 'Statusz' : 'Flagz';
    const forms: [accept: string, form: 'text' | 'json' | 'yaml' | 'none', version?: string][] = [
      ['absent', 'text'],
      ['', 'text'],
      ['*/*', 'text'],
      ['text/*', 'text'],
      ['text/plain', 'text'],
      ['text/html, */*;q=0.1', 'text'],
      [wanted(kind), 'json', 'v1beta1'],
      [wanted(kind, 'v1alpha1'), 'json', 'v1alpha1'],
      [wanted(kind, 'v1beta1', 'application/yaml'), 'yaml', 'v1beta1'],
      [`APPLICATION/JSON; as=${kind}; g="config.k8s.io"; v=v1beta1`, 'json', 'v1beta1'],
      [`text/plain;q=0.5, ${wanted(kind)}`, 'json', 'v1beta1'],
      [`${wanted(kind)};q=0.5, text/plain`, 'text'],
      [`${wanted(kind, 'v2')}, ${wanted(kind)};q=0.1`, 'json', 'v1beta1'],
      [`${wanted(kind, 'v2')}, text/plain`, 'text'],
      ['application/json', 'none'],
      [wanted(kind, 'v2'), 'none'],
      [wanted(other), 'none'],
      [`application/json;v=v1beta1;as=${kind}`, 'none'],
      [wanted(kind, 'v1beta1', 'application/cbor'), 'none'],
      ['text/html', 'none'],
      ['text/plain;q=0', 'none'],
    ];
    for (const [accept, form, version = ''] of forms) {
      test(`${path}, Accept: ${accept}: ${form} ${version}`, async () => {
        const { status, headers, body } = await ask(path, accept);
        assert.equal(status, form === 'none' ? 406 : 200);
        switch (form) {
          case 'text':
            assert.equal(headers['content-type'], plain);
            assert.match(body, new RegExp(`^\nkube-proxy ${kind.toLowerCase()}\nWarning: `));
            break;
          case 'none': {
            assert.equal(headers['content-type'], json);
            const { kind: what, code, reason } = JSON.parse(body) as Record<string, unknown>;
            assert.deepEqual([what, code, reason], ['Status', 406, 'NotAcceptable']);
            break;
          }
          case 'json':
          case 'yaml': {
            assert.equal(
              headers['content-type'],
              `application/${form};g=config.k8s.io;v=${version};as=${kind}`,
            );
            const object = (form === 'json' ? JSON.parse(body) : parseYaml(body)) as Record<string, unknown>;
            assert.equal(object['kind'], kind);
            assert.equal(object['apiVersion'], `config.k8s.io/${version}`);
            assert.deepEqual(object['metadata'], { name: 'kube-proxy' });
          }
        }
        assert.equal(headers['warning'] !== undefined, version === 'v1alpha1');
        if (version === 'v1alpha1') assert.match(headers['warning'] ?? '', /^299 - ".*deprecated.*"$/);
      });
    }
  }

  test('flags by name', async () => {
    assert.match((await ask('/flagz', '*/*')).body, /\nconfig: \nv: 2\n$/);
    const { flags } = JSON.parse((await ask('/flagz', wanted('Flagz'))).body) as { flags: object };
    assert.deepEqual(flags, { config: '', v: '2' });
  });

  test('status: since when which version runs, and the pages there are', async () => {
    const { body } = await ask('/statusz', 'text/plain');
    assert.match(
      body,
      /\n\nStarted: \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d UTC \d{4}\nUp: 0 hr \d\d min \d\d sec\nGo version: node v\d+\.\d+\.\d+\nBinary version: 1\.37\.2\nEmulation version: 1\.37\nPaths: \/configz \/flagz \/healthz \/metrics \/proxyMode\n$/,
    );
    const status = JSON.parse((await ask('/statusz', wanted('Statusz'))).body) as Record<string, unknown>;
    assert.deepEqual(Object.keys(status).slice(3), [
      'startTime',
      'uptimeSeconds',
      'goVersion',
      'binaryVersion',
      'emulationVersion',
      'paths',
    ]);
    assert.deepEqual(status['paths'], ['/configz', '/flagz', '/healthz', '/metrics', '/proxyMode']);
    assert.match(String(status['startTime']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    assert.ok(Number.isInteger(status['uptimeSeconds']));
  });

  test('times for people', () => {
    assert.equal(unixDate(new Date(Date.UTC(2026, 0, 2, 3, 4, 5))), 'Fri Jan  2 03:04:05 UTC 2026');
    assert.equal(unixDate(new Date(Date.UTC(2026, 11, 31, 23, 59, 59))), 'Thu Dec 31 23:59:59 UTC 2026');
    assert.equal(hours(0), '0 hr 00 min 00 sec');
    assert.equal(hours(3723), '1 hr 02 min 03 sec');
    assert.equal(hours(360_059), '100 hr 00 min 59 sec');
  });
});
