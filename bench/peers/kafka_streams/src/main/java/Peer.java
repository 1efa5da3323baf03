import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.state.WindowBytesStoreSupplier;
import org.apache.kafka.streams.state.Stores;

/**
 * Readings in 10 s tumbling windows with count, sum, least, most and sum of squares, told when a window closes: exactly
 * once v2, a commit each 100 ms, state in memory with its changelog, one thread.
 */
public final class Peer {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Duration WINDOW = Duration.ofSeconds(10);

    private Peer() {}

    @JsonIgnoreProperties(ignoreUnknown = true)
    public static final class Reading {
        public String device_id;
        public double value;
        public long timestamp_ms;
    }

    public static final class Sums {
        public long count;
        public double sum;
        public double min = Double.POSITIVE_INFINITY;
        public double max = Double.NEGATIVE_INFINITY;
        public double squares;

        Sums with(double value) {
            count++;
            sum += value;
            min = Math.min(min, value);
            max = Math.max(max, value);
            squares += value * value;
            return this;
        }
    }

    public static final class EventTime implements TimestampExtractor {
        @Override
        public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
            return ((Reading) record.value()).timestamp_ms;
        }
    }

    private static <T> Serde<T> json(Class<T> type) {
        Serializer<T> serializer = (topic, data) -> {
            try {
                return data == null ? null : JSON.writeValueAsBytes(data);
            } catch (java.io.IOException error) {
                throw new IllegalStateException(error);
            }
        };
        Deserializer<T> deserializer = (topic, data) -> {
            try {
                return data == null ? null : JSON.readValue(data, type);
            } catch (java.io.IOException error) {
                throw new IllegalStateException(error);
            }
        };
        return Serdes.serdeFrom(serializer, deserializer);
    }

    /** Counts on the one thread that there is. */
    private static final class Progress {
        private final long expected;
        private final CountDownLatch done = new CountDownLatch(1);
        private long seen;
        private long begunNs;
        private volatile double perSecond;

        Progress(long expected) {
            this.expected = expected;
        }

        void one() {
            if (seen == 0) {
                begunNs = System.nanoTime();
            }
            if (++seen == expected) {
                perSecond = expected / ((System.nanoTime() - begunNs) / 1e9);
                done.countDown();
            }
        }
    }

    public static void main(String[] args) throws Exception {
        Map<String, String> environment = System.getenv();
        String topic = environment.get("BENCH_TOPIC");
        Progress progress = new Progress(Long.parseLong(environment.get("BENCH_READINGS")));
        StreamsBuilder builder = new StreamsBuilder();
        WindowBytesStoreSupplier store =
                Stores.inMemoryWindowStore("windows", WINDOW.multipliedBy(3), WINDOW, false);
        builder.stream(topic, Consumed.with(Serdes.String(), json(Reading.class))
                        .withTimestampExtractor(new EventTime()))
                .groupByKey(Grouped.with(Serdes.String(), json(Reading.class)))
                .windowedBy(TimeWindows.ofSizeWithNoGrace(WINDOW))
                .emitStrategy(EmitStrategy.onWindowClose())
                .aggregate(
                        Sums::new,
                        (key, reading, sums) -> {
                            progress.one();
                            return sums.with(reading.value);
                        },
                        Materialized.<String, Sums>as(store).withKeySerde(Serdes.String())
                                .withValueSerde(json(Sums.class)))
                .toStream((key, sums) -> key.key() + "@" + key.window().start())
                .to(topic + ".kafka-streams", Produced.with(Serdes.String(), json(Sums.class)));
        Properties config = new Properties();
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, topic + "-kafka-streams");
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, environment.get("EASYREMOTE_KAFKA"));
        config.put(StreamsConfig.STATE_DIR_CONFIG, environment.get("BENCH_STATE"));
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        config.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        config.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        config.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5_000);
        try (KafkaStreams streams = new KafkaStreams(builder.build(), config)) {
            streams.setUncaughtExceptionHandler(error -> {
                error.printStackTrace();
                Runtime.getRuntime().halt(1);
                return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
            });
            streams.start();
            if (!progress.done.await(240, TimeUnit.SECONDS)) {
                throw new IllegalStateException("of " + progress.expected + " readings " + progress.seen + " were taken");
            }
            Files.writeString(Path.of(environment.get("BENCH_RESULT")), Double.toString(progress.perSecond));
        }
    }
}
