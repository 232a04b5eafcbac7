"""BuildKit's messages, compiled from the .proto files beside by tools/compile-protos."""
