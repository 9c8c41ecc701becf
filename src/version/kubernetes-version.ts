/** The release of Kubernetes whose kube-proxy this program stands in for: tools read it from `--version`, and more. */
export const kubernetesRelease = 'v1.37.2';
