module tailwise.dev/tests/cluster/binaries/prometheus

go 1.26.0
