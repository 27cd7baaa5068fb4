import java.net.URI;
import java.sql.*;
import java.util.UUID;

/** Writes events in the transaction of the change they tell of: by an insert, and by postrider.emit. */
public final class Writer {
    /** An insert: in order if whatever changes this order is locked before. */
    static void place(Connection database, String orderId) throws SQLException {
        run(database, "insert into purchase (id, state) values (?, 'placed')", orderId);
        run(database, "insert into outbox (id, aggregatetype, aggregateid, type, payload) values (?::uuid, 'order', ?, 'OrderPlaced', ?::json)",
            UUID.randomUUID().toString(), orderId, "{\"order\": \"" + orderId + "\"}");
        database.commit();
    }

    /** postrider.emit: in order, whoever writes, and it works in every capture mode. */
    static void pay(Connection database, String orderId) throws SQLException {
        run(database, "update purchase set state = 'paid' where id = ?", orderId);
        run(database, "select postrider.emit('order', ?, 'OrderPaid', ?::json)", orderId, "{\"order\": \"" + orderId + "\"}");
        database.commit();
    }

    private static void run(Connection database, String sql, String... values) throws SQLException {
        try (PreparedStatement statement = database.prepareStatement(sql)) {
            for (int place = 0; place < values.length; place++) statement.setString(place + 1, values[place]);
            statement.execute();
        }
    }

    /** JDBC wants the login of a postgresql:// URL apart. */
    static Connection connect() throws SQLException {
        URI url = URI.create(System.getenv("DATABASE_URL"));
        String[] login = url.getUserInfo().split(":", 2);
        String address = "jdbc:postgresql://" + url.getHost() + ":" + url.getPort() + url.getPath();
        Connection database = DriverManager.getConnection(address, login[0], login[1]);
        database.setAutoCommit(false);
        return database;
    }

    public static void main(String[] arguments) throws SQLException {
        try (Connection database = connect()) {
            for (int number = 0; number < Integer.parseInt(arguments[0]); number++) {
                place(database, "java-" + number);
                pay(database, "java-" + number);
            }
        }
    }
}
