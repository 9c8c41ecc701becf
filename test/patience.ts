/**
 * Time limits of tests are written for an ordinary machine. One that is slower by far (an emulated one, test/vm) says
 * so in TEST_PATIENCE: how many times as long everything may take.
 */
const factor = Number(process.env['TEST_PATIENCE'] ?? '1');
if (!(factor >= 1)) throw new RangeError(`TEST_PATIENCE is a number, at least 1; '${factor}' is none`);

/**
 * A time limit, in whatever unit, for the machine that this is.
 * @param most the factor at most, where nothing is expected to come and each wait is a wait in full
 */
export function patiently(limit: number, most = Infinity): number {
  return limit * Math.min(factor, most);
}
