package main

import (
	"context"
	"errors"
	"fmt"
)

// scenario is a measurement of several variants.
type scenario struct {
	// name is short; no other starts with it.
	name, what, unit string
	// rounds overrides the number of rounds, if not 0.
	rounds int
	// prepare creates what the variants need and returns how to remove it.
	prepare  func(ctx context.Context, env *environment) (variants []variant, cleanup func() error, err error)
	targets  []target
	moreWins bool
}

// variant is one way; measure returns a figure in the scenario's unit.
type variant struct {
	name    string
	measure func(ctx context.Context) (float64, error)
}

// target bounds a variant's median: by a share of another's, or if that is empty, by a figure.
type target struct {
	variant, base string
	// limit is a maximum, or a minimum if more wins.
	limit float64
}

// measure runs the variants in turn, round by round, after one round that does not count.
func measure(ctx context.Context, env *environment, s scenario, rounds int) (r result, err error) {
	if s.rounds > 0 {
		rounds = min(rounds, s.rounds)
	}
	variants, cleanup, err := s.prepare(ctx, env)
	if cleanup != nil {
		defer func() { err = errors.Join(err, cleanup()) }()
	}
	if err != nil {
		return result{}, err
	}
	figures := make([][]float64, len(variants))
	for round := -1; round < rounds; round++ {
		for i := range variants {
			// Each round starts with another, so that none always follows the same.
			k := (i + max(round, 0)) % len(variants)
			v, err := variants[k].measure(ctx)
			if err != nil {
				return result{}, fmt.Errorf("%s: %w", variants[k].name, err)
			}
			if round >= 0 {
				figures[k] = append(figures[k], v)
			}
		}
	}
	return newResult(s, variants, figures), nil
}
