package main

import (
	"context"
	"errors"
)

// execScenario runs an additional process in a running container from the command line.
func execScenario() scenario {
	return scenario{
		name: "exec", what: "run /bin/true in a running container", unit: "ms",
		targets: []target{
			{variant: "cleat exec", base: "runc exec", limit: 1.15},
			{variant: "cleat exec", base: "ctr exec", limit: 0.6},
		},
		prepare: prepareExec,
	}
}

func prepareExec(ctx context.Context, e *environment) ([]variant, func() error, error) {
	id := e.nextID("exec")
	bundle, err := e.newBundle(id, "/bin/sleep", "100000")
	if err != nil {
		return nil, nil, err
	}
	cleanup := func() error {
		ctx := context.WithoutCancel(ctx)
		err1 := e.runToEnd(ctx, e.runcCommand("delete", "--force", id))
		err2 := e.runToEnd(ctx, e.cleatCommand("rm", "--force", id))
		err3 := e.runToEnd(ctx, e.ctrCommand("tasks", "rm", "--force", id))
		err4 := e.runToEnd(ctx, e.ctrCommand("containers", "rm", id))
		return errors.Join(err1, err2, err3, err4)
	}
	for _, argv := range [][]string{
		e.runcCommand("run", "--detach", "--bundle", bundle, id),
		e.cleatCommand("run", "--detach", "--name", id, imageName, "/bin/sleep", "100000"),
		e.ctrCommand("run", "--detach", imageName, id, "/bin/sleep", "100000"),
	} {
		if _, err := e.timed(ctx, argv); err != nil {
			return nil, nil, errors.Join(err, cleanup())
		}
	}
	return []variant{
		{"runc exec", func(ctx context.Context) (float64, error) {
			return e.timed(ctx, e.runcCommand("exec", id, "/bin/true"))
		}},
		{"cleat exec", func(ctx context.Context) (float64, error) {
			return e.timed(ctx, e.cleatCommand("exec", id, "/bin/true"))
		}},
		{"ctr exec", func(ctx context.Context) (float64, error) {
			return e.timed(ctx, e.ctrCommand("tasks", "exec", "--exec-id", e.nextID("x"), id, "/bin/true"))
		}},
	}, cleanup, nil
}
