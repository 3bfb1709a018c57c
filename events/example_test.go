package events_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/cleatproject/cleat/events"
)

func Example() {
	dir, err := os.MkdirTemp("", "events")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l, err := events.Open(dir, events.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()

	before := l.Cursor()
	for _, topic := range []string{"/tasks/start", "/tasks/exit"} {
		if _, err := l.Append(events.Event{Namespace: "default", Topic: topic}); err != nil {
			log.Fatal(err)
		}
	}
	s, err := l.Subscribe(before)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		e, err := s.Next(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Namespace, e.Topic)
	}
	// Output:
	// default /tasks/start
	// default /tasks/exit
}
