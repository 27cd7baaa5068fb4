// Prints the golden vectors of src/record/topic.rs and src/record/encode.rs, computed by Kafka's own Java client.
//
//   mvn dependency:copy -Dartifact=org.apache.kafka:kafka-clients:4.1.1 -DoutputDirectory=jars
//   mvn dependency:copy -Dartifact=org.slf4j:slf4j-api:1.7.36 -DoutputDirectory=jars
//   java -cp 'jars/*' tests/vectors/Partition.java partition > tests/vectors/partition.csv
//   java -cp 'jars/*' tests/vectors/Partition.java size > tests/vectors/record_size.csv
//
// partition: keys in hexadecimal UTF-8, so that any key fits in a csv without quoting.
// size: lengths of a record's parts and the client's upper bound for a batch that holds it alone;
// -1 stands for a value that is null.

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.LinkedHashSet;
import java.util.Random;
import java.util.Set;
import java.util.UUID;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.AbstractRecords;
import org.apache.kafka.common.record.CompressionType;

public class Partition {
    static final int[] PARTITIONS = {1, 3, 7, 12, 64, 1000};

    public static void main(String[] arguments) {
        if (arguments.length == 1 && arguments[0].equals("partition")) {
            partitions();
        } else if (arguments.length == 1 && arguments[0].equals("size")) {
            sizes();
        } else {
            System.err.println("give one argument: partition or size");
            System.exit(2);
        }
    }

    static void partitions() {
        System.out.println("key_hex,partitions,partition");
        for (String key : keys()) {
            byte[] bytes = key.getBytes(StandardCharsets.UTF_8);
            for (int count : PARTITIONS) {
                int partition = BuiltInPartitioner.partitionForKey(bytes, count);
                System.out.println(HexFormat.of().formatHex(bytes) + "," + count + "," + partition);
            }
        }
    }

    static Set<String> keys() {
        Random random = new Random(20260801);
        Set<String> keys = new LinkedHashSet<>();
        keys.add("");
        for (int length = 1; length <= 40; length++) {
            keys.add("k".repeat(length));
            for (int repeat = 0; repeat < 3; repeat++) {
                keys.add(random.ints(length, ' ', '~' + 1)
                    .collect(StringBuilder::new, StringBuilder::appendCodePoint, StringBuilder::append)
                    .toString());
            }
        }
        for (int number = 0; number < 60; number++) {
            keys.add(Integer.toString(number * 37));
            keys.add("customer-" + number);
            keys.add(new UUID(random.nextLong(), random.nextLong()).toString());
        }
        String[] scripts = {"ä", "ß", "é", "Ω", "ж", "א", "日", "本", "語", "한", "😀", "👩‍🚀", "\u0001", "\u007f"};
        for (int length = 1; length <= 8; length++) {
            StringBuilder key = new StringBuilder();
            for (int index = 0; index < length; index++) {
                key.append(scripts[random.nextInt(scripts.length)]);
            }
            keys.add(key.toString());
        }
        for (String script : scripts) {
            keys.add(script);
            keys.add("x" + script + "yz");
        }
        keys.add("long".repeat(1024));
        keys.add("äöü".repeat(333) + "!");
        return keys;
    }

    static void sizes() {
        System.out.println("key_bytes,value_bytes,headers,header_name_bytes,header_value_bytes,batch_bytes_max");
        int[] lengths = {0, 1, 63, 64, 200, 8191, 8192, 1048575, 1048576};
        for (int key : new int[] {0, 63, 64, 9000}) {
            for (int value : lengths) {
                size(key, value, 0, 0, 0);
                size(key, value, 2, 4, 36);
                size(key, value, 2, 64, -1);
            }
            size(key, -1, 2, 4, 36);
            size(key, 200, 64, 10, 8192);
            size(key, 200, 10000, 1, 0);
        }
    }

    static void size(int key, int value, int headers, int name, int text) {
        Header[] list = new Header[headers];
        for (int index = 0; index < headers; index++) {
            list[index] = new RecordHeader("n".repeat(name), text < 0 ? null : new byte[text]);
        }
        ByteBuffer valueBuffer = value < 0 ? null : ByteBuffer.allocate(value);
        int bytes = AbstractRecords.estimateSizeInBytesUpperBound(
            (byte) 2, CompressionType.NONE, ByteBuffer.allocate(key), valueBuffer, list);
        System.out.println(key + "," + value + "," + headers + "," + name + "," + text + "," + bytes);
    }
}
