package main

import "context"

// runScenario runs a container to its end from the command line.
func runScenario() scenario {
	return scenario{
		name: "run", what: "run /bin/true in a new container and remove it", unit: "ms",
		targets: []target{
			{variant: "cleat run", base: "runc run", limit: 1.5},
			{variant: "cleat run", base: "ctr run", limit: 0.5},
		},
		prepare: func(_ context.Context, e *environment) ([]variant, func() error, error) {
			return []variant{
				{"runc run", func(ctx context.Context) (float64, error) {
					return e.timed(ctx, e.runcCommand("run", "--bundle", e.bundle, e.nextID("run")))
				}},
				{"cleat run", func(ctx context.Context) (float64, error) {
					return e.timed(ctx, e.cleatCommand("run", "--rm", imageName, "/bin/true"))
				}},
				{"ctr run", func(ctx context.Context) (float64, error) {
					return e.timed(ctx, e.ctrCommand("run", "--rm", imageName, e.nextID("run"), "/bin/true"))
				}},
			}, nil, nil
		},
	}
}
