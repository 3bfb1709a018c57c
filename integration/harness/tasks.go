package harness

// ResourcesURL is the published prefix of the types of resources.
const ResourcesURL = "types.containerd.io/opencontainers/runtime-spec/1/"
