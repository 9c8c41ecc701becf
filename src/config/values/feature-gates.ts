/**
 * The feature gates of Kubernetes v1.37 (config.md section 8). Clusters pass one list to all components, so every name is
 * known here, although only a few change what kube-proxy does.
 */

import { closest } from './suggestion.js';
import type { Switches } from './values.js';

export type GateStage = 'Alpha' | 'Beta' | 'GA' | 'Deprecated';

export interface FeatureGate {
  readonly stage: GateStage;
  readonly default: boolean;
  /** Can't be set to anything but its default. */
  readonly locked: boolean;
}

const group = (
  stage: GateStage,
  initial: boolean,
  locked: boolean,
  list: string,
): (readonly [string, FeatureGate])[] =>
  list
    .trim()
    .split(/\s+/)
    .map((name) => [name, { stage, default: initial, locked }] as const);

const namesIn = (list: string): ReadonlySet<string> => new Set(list.trim().split(/\s+/));

export const featureGates: ReadonlyMap<string, FeatureGate> = new Map([
  ...group(
    'Alpha',
    false,
    false,
    `
    APIServerWebhookAuthenticationToken APIServingWithRoutine AllAlpha AtomicWriteVolumeUserFields
    CBORServingAndStorage CPUManagerPolicyAlphaOptions CRIListStreaming CSIVolumeHealth ClientsAllowCBOR
    ClientsPreferCBOR CloudControllerManagerWatchBasedRoutesReconciliation CloudControllerManagerWebhook
    CompositePodGroup ConsistentListFromCacheSkipTimeoutFallback ContainerStopSignals
    ControllerManagerReleaseLeaderElectionLockOnExit CrossNamespaceVolumeDataSource DRADerivedAttributes
    DRADeviceCompatibilityGroups DRAListTypeAttributes DRANodeAllocatableResources
    DRAOptionalNodeOperations DRAPartitionableDevicesType DRAResourcePoolStatus DefaultPodSysctls
    EmptyDirVolumeMode EventedPLEG EvictionRequestAPI GRPCContainerProbeTLS H2CContainerProbe
    ImageVolumeWithDigest InPlacePodVerticalScalingExclusiveCPUs InPlacePodVerticalScalingExclusiveMemory
    InPlacePodVerticalScalingMemoryBackedVolumes InPlacePodVerticalScalingSchedulerPreemption
    InterPodAffinityHostnameFastPath KubeProxyNFTablesLocalhostNodePorts KubeletAllocatedPodsEndpoint
    LoggingAlphaOptions MutablePVNodeAffinity NodeLifecycleConditions PodGroupPreemptionPolicy
    PodLogsQuerySplitStreams QOSReserved ReduceDefaultCrashLoopBackOffDecay RuntimeClassInImageCriApi
    SchedulerPreQueueingHints ShardedListAndWatch StatefulSetRecreateStrategy StorageVersionAPI
    TaintTolerationComparisonOperators TopologyAwareWorkloadScheduling TopologyManagerPolicyAlphaOptions
    UserNamespacesHostNetworkSupport VolumeBindMountOptions WindowsCPUAndMemoryAffinity WorkloadWithJob
  `,
  ),
  ...group(
    'Beta',
    false,
    false,
    `
    AllBeta CoordinatedLeaderElection DRAFractionalCapacityRange DRAWorkloadResourceClaims GenericWorkload
    LocalStorageCapacityIsolationFSQuotaMonitoring PodAndContainerStatsFromCRI PodLevelResourceManagers
    SchedulerAsyncAPICalls
  `,
  ),
  ...group(
    'Beta',
    true,
    false,
    `
    APIResponseCompression APIServerIdentity AllowParsingUserUIDFromCertAuth
    AllowUnsafeMalformedObjectDeletion AtomicFIFO AuthorizePodWebsocketUpgradeCreatePermission
    CPUManagerPolicyBetaOptions CRDObservedGenerationTracking ClearingNominatedNodeNameAfterBinding
    ClientsAllowCARotation ClientsAllowTLSCacheGC ComponentFlagz ComponentStatusz
    ConcurrentWatchObjectDecode ConstrainedImpersonation ContainerCheckpoint ContainerRestartRules
    ContextualLogging DRAConsumableCapacity DRADeviceBindingConditions DRAPartitionableDevices
    DRAResourceClaimGranularStatusAuthorization DRASchedulerFilterTimeout DeclarativeValidationBeta
    DeploymentReplicaSetTerminatingReplicas DetectCacheInconsistency EnvFiles EtcdRangeStream
    ExcludeAdmissionWebhookVirtualResources ExtendWebSocketsToKubelet GracefulNodeShutdown
    GracefulNodeShutdownBasedOnPodPriority HPAGeneration HPAOptimizedSelectorStore HPAScaleToZero
    HugepageAwareEviction InOrderInformersBatchProcess InPlacePodLevelResourcesVerticalScaling
    KubeletCrashLoopBackOffMax KubeletEnsureSecretPulledImages KubeletInUserNamespace
    KubeletSeparateDiskGC KubeletServiceAccountTokenForCredentialProviders ListFromCacheSnapshot
    LoggingBetaOptions ManifestBasedAdmissionControlConfig MatchLabelKeysInPodTopologySpread
    MatchLabelKeysInPodTopologySpreadSelectorMerge MaxUnavailableStatefulSet MemoryQoS
    MutablePodResourcesForSuspendedJobs MutableSchedulingDirectivesForSuspendedJobs NFTablesNetlink
    NativeHistograms NodeControllerLeaseCircuitBreaker NominatedNodeNameForExpectation OpenAPIEnums
    OpportunisticBatching PersistentVolumeClaimUnusedSinceTime PodDeletionCost PodLevelResources
    PodLevelResourcesFixDefaulting PodLevelResourcesFixKubeletQOSClass PodTopologyLabelsAdmission PodsAPI
    PortForwardWebsockets ReloadKubeletClientCAFile ReloadKubeletServerCertificateFile
    RemoteRequestHeaderUID ResourceHealthStatus ResourceHealthStatusMessage
    RestartAllContainersOnContainerExits RotateKubeletServerCertificate SchedulerAsyncPreemption
    SchedulerPopFromBackoffQ ServiceAccountNodeAudienceRestriction SizeBasedListCostEstimate
    StaleControllerConsistencyDaemonSet StaleControllerConsistencyHPA StaleControllerConsistencyJob
    StaleControllerConsistencyReplicaSet StaleControllerConsistencyStatefulSet
    StatefulSetSemanticRevisionComparison StorageCapacityScoring StorageVersionHash StrictIPCIDRValidation
    StructuredAuthenticationConfigurationEgressSelector StructuredAuthenticationConfigurationJWKSMetrics
    TokenRequestServiceAccountUIDValidation TopologyManagerPolicyBetaOptions
    TranslateStreamCloseWebsocketRequests UnauthenticatedHTTP2DOSMitigation
    UnknownVersionInteroperabilityProxy UnlockWhileProcessingFIFO VolumeLimitScaling WatchList
    WatchListClient WatchListCompression WebhookRoundTripLoadBalancing WindowsGracefulNodeShutdown
  `,
  ),
  ...group(
    'GA',
    true,
    false,
    `
    AllowServiceExternalIPs ClusterTrustBundle ClusterTrustBundleProjection CustomCPUCFSQuotaPeriod
    DRADeviceTaintRules DRADeviceTaints InformerResourceVersion MutatingAdmissionPolicy
    PodCertificateRequest SELinuxMount StorageVersionMigrator
  `,
  ),
  ...group(
    'GA',
    true,
    true,
    `
    CPUManagerPolicyOptions CRDValidationRatcheting CSIServiceAccountTokenSecrets
    CustomResourceFieldSelectors DRAAdminAccess DRAExtendedResource DRAPrioritizedList
    DRAResourceClaimDeviceStatus DeclarativeValidation DisableAllocatorDualWrite DynamicResourceAllocation
    ExecProbeTimeout ExternalServiceAccountTokenSigner HPAConfigurableTolerance HostnameOverride
    ImageMaximumGCAge ImageVolume InOrderInformers InPlacePodVerticalScaling
    InPlacePodVerticalScalingInitContainers JobManagedBy KubeletCgroupDriverFromCRI
    KubeletFineGrainedAuthz KubeletPSI KubeletPodResourcesDynamicResources KubeletPodResourcesGet
    KubeletTracing MatchLabelKeysInPodAffinity MultiCIDRServiceAllocator MutableCSINodeAllocatableCount
    NFTablesProxyMode NodeDeclaredFeatures NodeInclusionPolicyInPodTopologySpread NodeLogQuery NodeSwap
    PLEGOnDemandRelist PodObservedGenerationTracking PodReadyToStartContainersCondition
    PodSchedulingReadiness PreferSameTrafficDistribution ProcMountType RecoverVolumeExpansionFailure
    RecursiveReadOnlyMounts RelaxedEnvironmentVariableValidation RelaxedServiceNameValidation
    SELinuxChangePolicy SELinuxMountReadWriteOncePod SeparateTaintEvictionController
    ServiceAccountTokenJTI ServiceAccountTokenNodeBinding ServiceAccountTokenNodeBindingValidation
    ServiceAccountTokenPodNodeInfo SupplementalGroupsPolicy SystemdWatchdog TopologyManagerPolicyOptions
    UserNamespacesSupport VolumeAttributesClass WatchCacheInitializationPostStartHook WinDSR WinOverlay
  `,
  ),
  ...group(
    'Deprecated',
    false,
    false,
    `
    AllowDNSOnlyNodeCSR AllowInsecureKubeletCertificateSigningRequests
    ChangeContainerStatusOnKubeletRestart KMSv1 KubeletRegistrationGetOnExistsOnly WindowsHostNetwork
  `,
  ),
  ...group(
    'Deprecated',
    false,
    true,
    `
    AllowOverwriteTerminationGracePeriodSeconds DeclarativeValidationTakeover GitRepoVolumeDriver
    SeparateCacheWatchRPC
  `,
  ),
  ...group(
    'Deprecated',
    true,
    false,
    `
    KubeProxyIPVS KubeletPodResourcesListUseActivePods ServiceCIDRStatusFieldWiping StorageNamespaceIndex
  `,
  ),
  ...group(
    'Deprecated',
    true,
    true,
    `
    AggregatedDiscoveryRemoveBetaType DisableCPUQuotaWithExclusiveCPUs DisableNodeKubeProxyVersion
  `,
  ),
]);

/** Gates of v1.36 that v1.37 no longer has. One gate list serves a cluster while its nodes are updated one by one. */
export const goneGates: ReadonlySet<string> = namesIn(`
  APIServerTracing AnonymousAuthConfigurableEndpoints AnyVolumeDataSource AuthorizeNodeWithSelectors
  AuthorizeWithSelectors BtreeWatchCache ConsistentListFromCache GangScheduling JobBackoffLimitPerIndex
  JobPodReplacementPolicy JobSuccessPolicy LogarithmicScaleDown OrderedNamespaceDeletion
  PodLifecycleSleepAction PodLifecycleSleepActionAllowZero PreventStaticPodAPIReferences
  RelaxedDNSSearchValidation ResilientWatchCacheInitialization RetryGenerateName SchedulerQueueingHints
  SidecarContainers StreamingCollectionEncodingToJSON StreamingCollectionEncodingToProtobuf
  StructuredAuthenticationConfiguration WorkloadAwarePreemption
`);

/** Gates that v1.36 let everybody set and v1.37 locks. None of them acts here: another value is told, and not followed. */
const newlyLocked: ReadonlySet<string> = namesIn(`
  DRAExtendedResource DRAPrioritizedList DRAResourceClaimDeviceStatus DeclarativeValidationTakeover
  DisableCPUQuotaWithExclusiveCPUs HPAConfigurableTolerance HostnameOverride
  InPlacePodVerticalScalingInitContainers NodeDeclaredFeatures PLEGOnDemandRelist
  PodReadyToStartContainersCondition RelaxedServiceNameValidation WatchCacheInitializationPostStartHook
`);

/** What a gate needs: with one of these switched off it can't be on. */
export const gateNeeds: ReadonlyMap<string, readonly string[]> = new Map<string, readonly string[]>([
  ['ClusterTrustBundleProjection', ['ClusterTrustBundle']],
  ['CompositePodGroup', ['GenericWorkload', 'TopologyAwareWorkloadScheduling']],
  ['DRAAdminAccess', ['DynamicResourceAllocation']],
  ['DRAConsumableCapacity', ['DynamicResourceAllocation']],
  ['DRADerivedAttributes', ['DynamicResourceAllocation']],
  ['DRADeviceBindingConditions', ['DynamicResourceAllocation', 'DRAResourceClaimDeviceStatus']],
  ['DRADeviceCompatibilityGroups', ['DRAPartitionableDevices', 'DynamicResourceAllocation']],
  ['DRADeviceTaintRules', ['DRADeviceTaints']],
  ['DRADeviceTaints', ['DynamicResourceAllocation']],
  ['DRAExtendedResource', ['DynamicResourceAllocation']],
  ['DRAFractionalCapacityRange', ['DRAConsumableCapacity']],
  ['DRAListTypeAttributes', ['DynamicResourceAllocation']],
  ['DRANodeAllocatableResources', ['DynamicResourceAllocation']],
  ['DRAOptionalNodeOperations', ['DynamicResourceAllocation', 'NodeDeclaredFeatures']],
  ['DRAPartitionableDevices', ['DynamicResourceAllocation']],
  [
    'DRAPartitionableDevicesType',
    ['DRAPartitionableDevices', 'DRAResourcePoolStatus', 'DynamicResourceAllocation'],
  ],
  ['DRAPrioritizedList', ['DynamicResourceAllocation']],
  [
    'DRAResourceClaimGranularStatusAuthorization',
    ['DynamicResourceAllocation', 'DRAResourceClaimDeviceStatus'],
  ],
  ['DRAResourcePoolStatus', ['DynamicResourceAllocation']],
  ['DRASchedulerFilterTimeout', ['DynamicResourceAllocation']],
  ['DRAWorkloadResourceClaims', ['DynamicResourceAllocation', 'GenericWorkload']],
  ['DeclarativeValidationBeta', ['DeclarativeValidation']],
  ['DeclarativeValidationTakeover', ['DeclarativeValidation']],
  ['DisableAllocatorDualWrite', ['MultiCIDRServiceAllocator']],
  ['EventedPLEG', ['PLEGOnDemandRelist']],
  ['ExtendWebSocketsToKubelet', ['NodeDeclaredFeatures']],
  ['GracefulNodeShutdownBasedOnPodPriority', ['GracefulNodeShutdown']],
  ['H2CContainerProbe', ['NodeDeclaredFeatures']],
  ['ImageVolumeWithDigest', ['ImageVolume']],
  [
    'InPlacePodLevelResourcesVerticalScaling',
    ['InPlacePodVerticalScaling', 'PodLevelResources', 'NodeDeclaredFeatures'],
  ],
  ['InPlacePodVerticalScalingExclusiveCPUs', ['InPlacePodVerticalScaling']],
  ['InPlacePodVerticalScalingExclusiveMemory', ['InPlacePodVerticalScaling']],
  ['InPlacePodVerticalScalingInitContainers', ['InPlacePodVerticalScaling', 'NodeDeclaredFeatures']],
  ['InPlacePodVerticalScalingMemoryBackedVolumes', ['InPlacePodVerticalScaling', 'NodeDeclaredFeatures']],
  ['InPlacePodVerticalScalingSchedulerPreemption', ['InPlacePodVerticalScaling']],
  ['KubeletAllocatedPodsEndpoint', ['InPlacePodVerticalScaling']],
  ['MatchLabelKeysInPodTopologySpreadSelectorMerge', ['MatchLabelKeysInPodTopologySpread']],
  ['NodeControllerLeaseCircuitBreaker', ['AtomicFIFO']],
  ['PodGroupPreemptionPolicy', ['GenericWorkload']],
  ['PodLevelResourceManagers', ['PodLevelResources']],
  ['PodLevelResourcesFixDefaulting', ['PodLevelResources']],
  ['PodLevelResourcesFixKubeletQOSClass', ['PodLevelResources']],
  ['ProcMountType', ['UserNamespacesSupport']],
  ['ResourceHealthStatus', ['DynamicResourceAllocation']],
  ['ResourceHealthStatusMessage', ['ResourceHealthStatus']],
  ['RestartAllContainersOnContainerExits', ['ContainerRestartRules', 'NodeDeclaredFeatures']],
  ['ServiceAccountTokenNodeBinding', ['ServiceAccountTokenNodeBindingValidation']],
  ['StaleControllerConsistencyDaemonSet', ['AtomicFIFO']],
  ['StaleControllerConsistencyHPA', ['AtomicFIFO']],
  ['StaleControllerConsistencyJob', ['AtomicFIFO']],
  ['StaleControllerConsistencyReplicaSet', ['AtomicFIFO']],
  ['StaleControllerConsistencyStatefulSet', ['AtomicFIFO']],
  ['StorageVersionAPI', ['APIServerIdentity']],
  ['TopologyAwareWorkloadScheduling', ['GenericWorkload']],
  ['UnknownVersionInteroperabilityProxy', ['APIServerIdentity']],
  ['UserNamespacesHostNetworkSupport', ['UserNamespacesSupport', 'NodeDeclaredFeatures']],
  ['WindowsGracefulNodeShutdown', ['GracefulNodeShutdown']],
  ['WorkloadWithJob', ['GenericWorkload']],
]);

/** Gates that change what this program does, and what they change. */
export const actingGates = {
  AllowServiceExternalIPs:
    'Off: `spec.externalIPs` of Services are not served; the Services still count as reachable from outside.',
  ComponentFlagz: '`/flagz` on the metrics port.',
  ComponentStatusz: '`/statusz` on the metrics port.',
  KubeProxyIPVS: 'Off: `mode: ipvs` is refused.',
  KubeProxyNFTablesLocalhostNodePorts:
    'In mode nftables, where `nodePortAddresses` names loopback addresses (`localhost` or a loopback CIDR, not `all`): node ports answer on them.',
  LoggingAlphaOptions: 'Allows `splitStream` and `infoBufferSize` of logging.',
  LoggingBetaOptions: 'Allows log lines in JSON.',
  WatchListClient: 'Asks the API server for streaming lists first.',
} as const;
export type ActingGate = keyof typeof actingGates;

/** Gates that change upstream's kube-proxy, but not this one. Setting them is told. */
const idleGates: ReadonlySet<string> = new Set([
  'CBORServingAndStorage',
  'ClientsAllowCBOR',
  'ClientsPreferCBOR',
  'NFTablesNetlink',
  'NativeHistograms',
  'WatchListCompression',
]);

/**
 * Gates that v1.36 did not have, on by default, whose needs v1.36 let everybody switch off alone: where one was not asked for,
 * it goes off with what it needs, so that a list written for v1.36 stays valid.
 */
const yieldingGates: ReadonlySet<string> = new Set([
  'NodeControllerLeaseCircuitBreaker',
  'PodLevelResourcesFixDefaulting',
  'PodLevelResourcesFixKubeletQOSClass',
  'StaleControllerConsistencyHPA',
]);

/** Every gate, as it is in force. */
export type FeatureGates = Readonly<Record<ActingGate, boolean> & Record<string, boolean>>;

export interface GateFindings {
  readonly gates: FeatureGates;
  readonly problems: readonly GateProblem[];
  /** Gates that will be gone one day: a sentence each. */
  readonly warnings: readonly string[];
}

export interface GateProblem {
  readonly gate: string;
  /** What is wrong, as a sentence that follows the gate's name. */
  readonly message: string;
}

/** What the gates are when these have been asked for. */
export function resolveGates(asked: Switches): GateFindings {
  const problems: GateProblem[] = [];
  const warnings: string[] = [];
  const gone: string[] = [];
  const gates: Record<string, boolean> = {};
  for (const [name, { stage, default: initial, locked }] of featureGates) {
    const whole = asked[`All${stage}`];
    gates[name] = asked[name] ?? (whole !== undefined && !locked ? whole : initial);
  }
  for (const [gate, on] of Object.entries(asked)) {
    if (goneGates.has(gate)) {
      gone.push(gate);
      continue;
    }
    const known = featureGates.get(gate);
    if (idleGates.has(gate) && on) warnings.push(`feature gate ${gate} has no effect in this program`);
    if (known === undefined) {
      const meant = closest(gate, featureGates.keys());
      const advice = meant === undefined ? '' : ` (did you mean ${meant}?)`;
      problems.push({ gate, message: `is not a feature gate of Kubernetes v1.37${advice}` });
    } else if (newlyLocked.has(gate) && on !== known.default) {
      gates[gate] = known.default;
      warnings.push(
        `feature gate ${gate} is locked to ${known.default} since v1.37: ${gate}=${on} is ignored`,
      );
    } else if (known.locked && on !== known.default) {
      problems.push({ gate, message: `is locked to ${known.default}` });
    } else if (known.stage === 'GA' || known.stage === 'Deprecated') {
      warnings.push(
        `feature gate ${gate} is ${stageText[known.stage]}: a later version will refuse its name`,
      );
    }
  }
  if (gone.length > 0) {
    warnings.push(
      `v1.37 no longer has the feature gate${gone.length > 1 ? 's' : ''} ${gone.sort().join(', ')}: ignored, remove from the configuration`,
    );
  }
  if (problems.length > 0) return { gates: gates as FeatureGates, problems, warnings };
  yieldToNeeds(gates, asked);
  for (const [gate, needs] of gateNeeds) {
    const off = needs.filter((need) => gates[need] !== true);
    if (gates[gate] === true && off.length > 0) {
      problems.push({
        gate,
        message: `is on, but needs ${off.join(', ')}, which ${off.length > 1 ? 'are' : 'is'} off`,
      });
    }
  }
  return { gates: gates as FeatureGates, problems, warnings };
}

/** Switches off what nobody asked for by name and what lacks a need: `AllAlpha` alone stays a valid list. */
function yieldToNeeds(gates: Record<string, boolean>, asked: Switches): void {
  const yields = (gate: string): boolean =>
    asked[gate] === undefined && (yieldingGates.has(gate) || featureGates.get(gate)?.default === false);
  for (let changed = true; changed;) {
    changed = false;
    for (const [gate, needs] of gateNeeds) {
      if (gates[gate] !== true || !yields(gate) || needs.every((need) => gates[need] === true)) continue;
      gates[gate] = false;
      changed = true;
    }
  }
}

const stageText = { GA: 'generally available', Deprecated: 'deprecated' } as const;
