import assert from 'node:assert/strict';
import { test } from 'node:test';
import { proxyFromEnvironment } from './proxy-settings.js';

const proxy = 'http://proxy.example:3128';

// Server, NO_PROXY, whether the proxy is used.
const cases: readonly (readonly [server: string, without: string, used: boolean])[] = [
  ['https://10.0.0.1:6443', '', true],
  ['https://api.example:6443', '', true],
  ['https://127.0.0.1:6443', '', false],
  ['https://127.9.9.9', '', false],
  ['https://[::1]:6443', '', false],
  ['https://localhost', '', false],
  ['https://10.0.0.1', '*', false],
  ['https://10.0.0.1', '10.0.0.1', false],
  ['https://10.0.0.2', '10.0.0.1', true],
  ['https://10.0.0.1', 'other.example, 10.0.0.0/8', false],
  ['https://11.0.0.1', '10.0.0.0/8', true],
  ['https://[fd00::1]:6443', 'fd00::/8', false],
  ['https://[fd00::1]:6443', '[fd00::1]', false],
  ['https://[fd00::1]:6443', '[fd00::1]:443', true],
  ['https://10.0.0.1:6443', '10.0.0.1:6443', false],
  ['https://10.0.0.1:6443', '10.0.0.1:443', true],
  ['https://10.0.0.1', '10.0.0.1:443', false],
  ['https://api.example', 'example', false],
  ['https://api.example', 'API.Example', false],
  ['https://api.example', '.example', false],
  ['https://example', '.example', true],
  ['https://api.example', '*.example', false],
  ['https://myexample', 'example', true],
  ['https://api.example', '10.0.0.0/99', true],
  ['https://api.example', 'nonsense:x:y', true],
];
for (const [server, without, used] of cases) {
  test(`${server} with NO_PROXY=${without}: ${used ? 'through the proxy' : 'directly'}`, () => {
    const found = proxyFromEnvironment(new URL(server), { HTTPS_PROXY: proxy, NO_PROXY: without });
    assert.equal(found?.href, used ? `${proxy}/` : undefined);
  });
}

test('the variable fits the protocol, capital letters come first, a bare host is http', () => {
  const environment = { https_proxy: 'small:1', HTTPS_PROXY: 'big:2', HTTP_PROXY: 'plain:3' };
  const of = (server: string, from: object): string | undefined =>
    proxyFromEnvironment(new URL(server), from as Record<string, string>)?.href;
  assert.equal(of('https://10.0.0.1', environment), 'http://big:2/');
  assert.equal(of('https://10.0.0.1', { https_proxy: 'small:1' }), 'http://small:1/');
  assert.equal(of('http://10.0.0.1', environment), 'http://plain:3/');
  assert.equal(of('http://10.0.0.1', { HTTPS_PROXY: proxy }), undefined);
  assert.equal(of('https://10.0.0.1', { HTTPS_PROXY: 'https://tls.example' }), 'https://tls.example/');
});

test('a proxy that is not spoken to is refused by name', () => {
  assert.throws(
    () => proxyFromEnvironment(new URL('https://10.0.0.1'), { HTTPS_PROXY: 'socks5://x:1' }),
    /environment variable HTTPS_PROXY "socks5:\/\/x:1" is not supported: only http:/,
  );
});
