/** Settings of the machine that the proxy needs, beside the rules: connection tracking, sysctls, the OOM score. */
export {
  ConntrackTuning,
  conntrackMax,
  type ConntrackSettings,
  type TuningState,
} from './conntrack-tuning.js';
export { countCPUs } from './cpus.js';
export { systemFiles, type SystemFiles } from './files.js';
export { setOOMScore } from './oom-score.js';
export { setSysctl, sysctlPath, SettingError, type SettingChange, type SettingErrorCode } from './setting.js';
export { loadConntrack, tuneConntrack, type TuneOptions, type Tuning } from './tune-conntrack.js';
