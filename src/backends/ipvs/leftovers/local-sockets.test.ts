import assert from 'node:assert/strict';
import { endianness } from 'node:os';
import { test } from 'node:test';
import { socketAddresses } from './local-sockets.js';

const head =
  '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode';
const tail = '00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 20 4 30 10 -1';

test(
  'addresses of sockets with connections, whatever their family',
  { skip: endianness() === 'BE' ? 'the numbers are those of a little-endian machine' : false },
  () => {
    const text = [
      head,
      `   0: 0B00600A:D431 0B00600A:0050 01 ${tail}`,
      `   1: 0100007F:1F90 00000000:0000 0A ${tail}`,
      `   2: 0C00600A:D431 0C00600A:0050 06 ${tail}`,
      `  10: 0D00600A:D431 0D00600A:0050 08 ${tail}`,
      `   0: 960000FD000000000000000001000000:D431 960000FD000000000000000001000000:0050 01 ${tail}`,
      `   1: 0000000000000000FFFF00000E00600A:D431 0000000000000000FFFF00000E00600A:0050 02 ${tail}`,
      '',
    ].join('\n');
    assert.deepEqual([...socketAddresses(text)], ['10.96.0.11', '10.96.0.13', 'fd00:96::1', '10.96.0.14']);
  },
);
