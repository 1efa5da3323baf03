"""What travels: records, declarations of topics, and the only code that touches a Kafka client."""
