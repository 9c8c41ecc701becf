/**
 * The feature gates of Kubernetes v1.36 (config.md section 8). Clusters pass one list to all components, so every name is
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
  names: string,
): (readonly [string, FeatureGate])[] =>
  names
    .trim()
    .split(/\s+/)
    .map((name) => [name, { stage, default: initial, locked }] as const);

export const featureGates: ReadonlyMap<string, FeatureGate> = new Map([
  ...group(
    'Alpha',
    false,
    false,
    `
    APIServingWithRoutine AllAlpha AllowUnsafeMalformedObjectDeletion CBORServingAndStorage
    CPUManagerPolicyAlphaOptions CRIListStreaming CSIVolumeHealth ClientsAllowCBOR ClientsPreferCBOR
    CloudControllerManagerWatchBasedRoutesReconciliation CloudControllerManagerWebhook
    ContainerStopSignals ControllerManagerReleaseLeaderElectionLockOnExit CrossNamespaceVolumeDataSource
    DRAListTypeAttributes DRANodeAllocatableResources DRAResourcePoolStatus DRAWorkloadResourceClaims
    EventedPLEG GangScheduling GenericWorkload HPAScaleToZero ImageVolumeWithDigest
    InPlacePodVerticalScalingExclusiveCPUs InPlacePodVerticalScalingExclusiveMemory
    KubeletInUserNamespace LoggingAlphaOptions ManifestBasedAdmissionControlConfig MemoryQoS
    MutablePVNodeAffinity NativeHistograms PersistentVolumeClaimUnusedSinceTime
    PodAndContainerStatsFromCRI PodLevelResourceManagers PodLogsQuerySplitStreams PodsAPI QOSReserved
    ReduceDefaultCrashLoopBackOffDecay RuntimeClassInImageCriApi ShardedListAndWatch
    StorageCapacityScoring StorageVersionAPI TaintTolerationComparisonOperators
    TopologyAwareWorkloadScheduling TopologyManagerPolicyAlphaOptions UserNamespacesHostNetworkSupport
    VolumeLimitScaling WindowsCPUAndMemoryAffinity WorkloadAwarePreemption WorkloadWithJob
  `,
  ),
  ...group(
    'Beta',
    false,
    false,
    `
    AllBeta ClusterTrustBundle ClusterTrustBundleProjection ConcurrentWatchObjectDecode
    CoordinatedLeaderElection DRADeviceTaintRules LocalStorageCapacityIsolationFSQuotaMonitoring
    MaxUnavailableStatefulSet PodCertificateRequest SELinuxMount SchedulerAsyncAPICalls
    StorageVersionMigrator
  `,
  ),
  ...group(
    'Beta',
    true,
    false,
    `
    APIResponseCompression APIServerIdentity AllowParsingUserUIDFromCertAuth AtomicFIFO
    AuthorizePodWebsocketUpgradeCreatePermission CPUManagerPolicyBetaOptions
    CRDObservedGenerationTracking ClearingNominatedNodeNameAfterBinding ClientsAllowCARotation
    ClientsAllowTLSCacheGC ComponentFlagz ComponentStatusz ConstrainedImpersonation ContainerCheckpoint
    ContainerRestartRules ContextualLogging DRAConsumableCapacity DRADeviceBindingConditions
    DRADeviceTaints DRAExtendedResource DRAPartitionableDevices DRAResourceClaimDeviceStatus
    DRAResourceClaimGranularStatusAuthorization DRASchedulerFilterTimeout DeclarativeValidationBeta
    DeploymentReplicaSetTerminatingReplicas DetectCacheInconsistency EnvFiles ExtendWebSocketsToKubelet
    GracefulNodeShutdown GracefulNodeShutdownBasedOnPodPriority HPAConfigurableTolerance HostnameOverride
    InOrderInformersBatchProcess InPlacePodLevelResourcesVerticalScaling
    InPlacePodVerticalScalingInitContainers KubeletCrashLoopBackOffMax KubeletEnsureSecretPulledImages
    KubeletSeparateDiskGC KubeletServiceAccountTokenForCredentialProviders ListFromCacheSnapshot
    LoggingBetaOptions MatchLabelKeysInPodTopologySpread MatchLabelKeysInPodTopologySpreadSelectorMerge
    MutablePodResourcesForSuspendedJobs MutableSchedulingDirectivesForSuspendedJobs NodeDeclaredFeatures
    NominatedNodeNameForExpectation OpenAPIEnums OpportunisticBatching PLEGOnDemandRelist PodDeletionCost
    PodLevelResources PodReadyToStartContainersCondition PodTopologyLabelsAdmission PortForwardWebsockets
    PreventStaticPodAPIReferences RelaxedServiceNameValidation ReloadKubeletClientCAFile
    ReloadKubeletServerCertificateFile RemoteRequestHeaderUID ResourceHealthStatus
    ResourceHealthStatusMessage RestartAllContainersOnContainerExits RotateKubeletServerCertificate
    SchedulerAsyncPreemption SchedulerPopFromBackoffQ ServiceAccountNodeAudienceRestriction
    SizeBasedListCostEstimate StaleControllerConsistencyDaemonSet StaleControllerConsistencyJob
    StaleControllerConsistencyReplicaSet StaleControllerConsistencyStatefulSet
    StatefulSetSemanticRevisionComparison StorageVersionHash StrictIPCIDRValidation
    StructuredAuthenticationConfigurationEgressSelector StructuredAuthenticationConfigurationJWKSMetrics
    TokenRequestServiceAccountUIDValidation TopologyManagerPolicyBetaOptions
    TranslateStreamCloseWebsocketRequests UnauthenticatedHTTP2DOSMitigation
    UnknownVersionInteroperabilityProxy UnlockWhileProcessingFIFO WatchCacheInitializationPostStartHook
    WatchList WatchListClient WindowsGracefulNodeShutdown
  `,
  ),
  ...group(
    'GA',
    true,
    false,
    `
    AllowServiceExternalIPs CustomCPUCFSQuotaPeriod DRAPrioritizedList InformerResourceVersion
    MutatingAdmissionPolicy
  `,
  ),
  ...group(
    'GA',
    true,
    true,
    `
    APIServerTracing AnonymousAuthConfigurableEndpoints AnyVolumeDataSource AuthorizeNodeWithSelectors
    AuthorizeWithSelectors BtreeWatchCache CPUManagerPolicyOptions CRDValidationRatcheting
    CSIServiceAccountTokenSecrets ConsistentListFromCache CustomResourceFieldSelectors DRAAdminAccess
    DeclarativeValidation DisableAllocatorDualWrite DynamicResourceAllocation ExecProbeTimeout
    ExternalServiceAccountTokenSigner ImageMaximumGCAge ImageVolume InOrderInformers
    InPlacePodVerticalScaling JobBackoffLimitPerIndex JobManagedBy JobPodReplacementPolicy
    JobSuccessPolicy KubeletCgroupDriverFromCRI KubeletFineGrainedAuthz KubeletPSI
    KubeletPodResourcesDynamicResources KubeletPodResourcesGet KubeletTracing LogarithmicScaleDown
    MatchLabelKeysInPodAffinity MultiCIDRServiceAllocator MutableCSINodeAllocatableCount
    NFTablesProxyMode NodeInclusionPolicyInPodTopologySpread NodeLogQuery NodeSwap
    OrderedNamespaceDeletion PodLifecycleSleepAction PodLifecycleSleepActionAllowZero
    PodObservedGenerationTracking PodSchedulingReadiness PreferSameTrafficDistribution ProcMountType
    RecoverVolumeExpansionFailure RecursiveReadOnlyMounts RelaxedDNSSearchValidation
    RelaxedEnvironmentVariableValidation ResilientWatchCacheInitialization RetryGenerateName
    SELinuxChangePolicy SELinuxMountReadWriteOncePod SchedulerQueueingHints
    SeparateTaintEvictionController ServiceAccountTokenJTI ServiceAccountTokenNodeBinding
    ServiceAccountTokenNodeBindingValidation ServiceAccountTokenPodNodeInfo SidecarContainers
    StreamingCollectionEncodingToJSON StreamingCollectionEncodingToProtobuf
    StructuredAuthenticationConfiguration SupplementalGroupsPolicy SystemdWatchdog
    TopologyManagerPolicyOptions UserNamespacesSupport VolumeAttributesClass WinDSR WinOverlay
  `,
  ),
  ...group(
    'Deprecated',
    false,
    false,
    `
    AllowDNSOnlyNodeCSR AllowInsecureKubeletCertificateSigningRequests
    ChangeContainerStatusOnKubeletRestart DeclarativeValidationTakeover KMSv1
    KubeletRegistrationGetOnExistsOnly WindowsHostNetwork
  `,
  ),
  ...group(
    'Deprecated',
    false,
    true,
    `
    AllowOverwriteTerminationGracePeriodSeconds GitRepoVolumeDriver SeparateCacheWatchRPC
  `,
  ),
  ...group(
    'Deprecated',
    true,
    false,
    `
    DisableCPUQuotaWithExclusiveCPUs KubeletPodResourcesListUseActivePods ServiceCIDRStatusFieldWiping
    StorageNamespaceIndex
  `,
  ),
  ...group(
    'Deprecated',
    true,
    true,
    `
    AggregatedDiscoveryRemoveBetaType DisableNodeKubeProxyVersion
  `,
  ),
]);

/** What a gate needs: with one of these switched off it can't be on. */
export const gateNeeds: ReadonlyMap<string, readonly string[]> = new Map<string, readonly string[]>([
  ['AuthorizeNodeWithSelectors', ['AuthorizeWithSelectors']],
  ['ClusterTrustBundleProjection', ['ClusterTrustBundle']],
  ['DRAAdminAccess', ['DynamicResourceAllocation']],
  ['DRAConsumableCapacity', ['DynamicResourceAllocation']],
  ['DRADeviceBindingConditions', ['DynamicResourceAllocation', 'DRAResourceClaimDeviceStatus']],
  ['DRADeviceTaintRules', ['DRADeviceTaints']],
  ['DRADeviceTaints', ['DynamicResourceAllocation']],
  ['DRAExtendedResource', ['DynamicResourceAllocation']],
  ['DRAListTypeAttributes', ['DynamicResourceAllocation']],
  ['DRANodeAllocatableResources', ['DynamicResourceAllocation']],
  ['DRAPartitionableDevices', ['DynamicResourceAllocation']],
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
  ['ExtendWebSocketsToKubelet', ['NodeDeclaredFeatures']],
  ['GangScheduling', ['GenericWorkload']],
  ['GracefulNodeShutdownBasedOnPodPriority', ['GracefulNodeShutdown']],
  ['ImageVolumeWithDigest', ['ImageVolume']],
  [
    'InPlacePodLevelResourcesVerticalScaling',
    ['InPlacePodVerticalScaling', 'PodLevelResources', 'NodeDeclaredFeatures'],
  ],
  ['InPlacePodVerticalScalingExclusiveCPUs', ['InPlacePodVerticalScaling']],
  ['InPlacePodVerticalScalingExclusiveMemory', ['InPlacePodVerticalScaling']],
  ['InPlacePodVerticalScalingInitContainers', ['InPlacePodVerticalScaling', 'NodeDeclaredFeatures']],
  ['MatchLabelKeysInPodTopologySpreadSelectorMerge', ['MatchLabelKeysInPodTopologySpread']],
  ['PodCertificateRequest', ['AuthorizeNodeWithSelectors']],
  ['PodLevelResourceManagers', ['PodLevelResources']],
  ['PodLifecycleSleepActionAllowZero', ['PodLifecycleSleepAction']],
  ['ProcMountType', ['UserNamespacesSupport']],
  ['ResourceHealthStatus', ['DynamicResourceAllocation']],
  ['ResourceHealthStatusMessage', ['ResourceHealthStatus']],
  ['RestartAllContainersOnContainerExits', ['ContainerRestartRules', 'NodeDeclaredFeatures']],
  ['ServiceAccountTokenNodeBinding', ['ServiceAccountTokenNodeBindingValidation']],
  ['StaleControllerConsistencyDaemonSet', ['AtomicFIFO']],
  ['StaleControllerConsistencyJob', ['AtomicFIFO']],
  ['StaleControllerConsistencyReplicaSet', ['AtomicFIFO']],
  ['StaleControllerConsistencyStatefulSet', ['AtomicFIFO']],
  ['StorageVersionAPI', ['APIServerIdentity']],
  ['StructuredAuthenticationConfigurationEgressSelector', ['StructuredAuthenticationConfiguration']],
  ['StructuredAuthenticationConfigurationJWKSMetrics', ['StructuredAuthenticationConfiguration']],
  ['TopologyAwareWorkloadScheduling', ['GenericWorkload']],
  ['UnknownVersionInteroperabilityProxy', ['APIServerIdentity']],
  ['UserNamespacesHostNetworkSupport', ['UserNamespacesSupport', 'NodeDeclaredFeatures']],
  ['WindowsGracefulNodeShutdown', ['GracefulNodeShutdown']],
  ['WorkloadAwarePreemption', ['GangScheduling']],
  ['WorkloadWithJob', ['GenericWorkload']],
]);

/** Gates that change what this program does, and what they change. */
export const actingGates = {
  AllowServiceExternalIPs:
    'Off: `spec.externalIPs` of Services are not served; the Services still count as reachable from outside.',
  ComponentFlagz: '`/flagz` on the metrics port.',
  ComponentStatusz: '`/statusz` on the metrics port.',
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
  'NativeHistograms',
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
  const gates: Record<string, boolean> = {};
  for (const [name, { stage, default: initial, locked }] of featureGates) {
    const whole = asked[`All${stage}`];
    gates[name] = asked[name] ?? (whole !== undefined && !locked ? whole : initial);
  }
  for (const [gate, on] of Object.entries(asked)) {
    const known = featureGates.get(gate);
    if (idleGates.has(gate) && on) warnings.push(`feature gate ${gate} has no effect in this program`);
    if (known === undefined) {
      const meant = closest(gate, featureGates.keys());
      const advice = meant === undefined ? '' : ` (did you mean ${meant}?)`;
      problems.push({ gate, message: `is not a feature gate of Kubernetes v1.36${advice}` });
    } else if (known.locked && on !== known.default) {
      problems.push({ gate, message: `is locked to ${known.default}` });
    } else if (known.stage === 'GA' || known.stage === 'Deprecated') {
      warnings.push(
        `feature gate ${gate} is ${stageText[known.stage]}: a later version will refuse its name`,
      );
    }
  }
  if (problems.length > 0) return { gates: gates as FeatureGates, problems, warnings };
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

const stageText = { GA: 'generally available', Deprecated: 'deprecated' } as const;
