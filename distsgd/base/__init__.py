"""The ground floor: arrays, files, locks, random keys; knows nothing above it but `errors`."""
