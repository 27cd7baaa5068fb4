import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.time.Duration;
import java.util.*;
import java.util.stream.StreamSupport;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.serialization.*;

/** Pays each order once: the effect and the inbox in one transaction, Kafka's offsets behind it. */
public final class Consumer {
    private static final String NAME = System.getenv().getOrDefault("CONSUMER", "billing");
    private static final String ADMIT = "select postrider_inbox.admit(?, ?, ?, ?::bigint[], ?::numeric[], ?::uuid[])";

    /** One transaction per poll. It may run again for the same records: nothing happens then. */
    static void handle(Connection database, List<ConsumerRecord<String, byte[]>> records) throws SQLException {
        Boolean[] isNew;
        try (PreparedStatement admit = database.prepareStatement(ADMIT)) {
            admit.setString(1, NAME);
            admit.setArray(2, texts(database, records.stream().map(r -> Optional.ofNullable(header(r, "aggregatetype")).orElse(r.topic()))));
            admit.setArray(3, texts(database, records.stream().map(ConsumerRecord::key)));
            admit.setArray(4, texts(database, records.stream().map(r -> header(r, "seq"))));
            admit.setArray(5, texts(database, records.stream().map(r -> header(r, "position"))));
            admit.setArray(6, texts(database, records.stream().map(r -> header(r, "id"))));
            ResultSet answer = admit.executeQuery();
            answer.next();
            isNew = (Boolean[]) answer.getArray(1).getArray();
        }
        try (PreparedStatement effect = database.prepareStatement("insert into effect (event_id, aggregate_id) values (?::uuid, ?)")) {
            for (int place = 0; place < records.size(); place++) {
                if (!isNew[place]) continue;
                effect.setString(1, header(records.get(place), "id"));
                effect.setString(2, records.get(place).key());
                effect.executeUpdate();
            }
        }
        database.commit();
    }

    private static Array texts(Connection database, java.util.stream.Stream<String> values) throws SQLException {
        return database.createArrayOf("text", values.toArray());
    }

    private static String header(ConsumerRecord<?, ?> record, String name) {
        var found = record.headers().lastHeader(name);
        return found == null || found.value() == null ? null : new String(found.value(), StandardCharsets.UTF_8);
    }

    public static void main(String[] arguments) throws SQLException {
        Map<String, Object> settings = Map.of("bootstrap.servers", System.getenv("BROKERS"), "group.id", NAME, "enable.auto.commit", false, "auto.offset.reset", "earliest");
        try (var kafka = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer()); var database = Writer.connect()) {
            kafka.subscribe(List.of(arguments[0]));
            while (true) {
                var records = StreamSupport.stream(kafka.poll(Duration.ofSeconds(1)).spliterator(), false).toList();
                if (records.isEmpty()) continue;
                handle(database, records);
                kafka.commitSync();
            }
        }
    }
}
