module github.com/cleatproject/cleat/integration/goclient/harness

go 1.26.8
