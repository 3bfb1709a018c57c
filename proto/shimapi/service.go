package shimapi

// Service is the name of the native shim service on the wire.
const Service = "cleat.shim.v1.Shim"
