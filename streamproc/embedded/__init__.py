"""The laptop world: real Kafka, Milvus Lite and made-up streams, all ending with the process that started them."""
