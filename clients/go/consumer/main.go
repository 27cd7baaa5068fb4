// Command consumer pays each order once: the effect and the inbox in one transaction, Kafka's offsets behind it.
package main

import (
	"cmp"
	"context"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

var name = cmp.Or(os.Getenv("CONSUMER"), "billing")

const (
	admit  = "select postrider_inbox.admit($1, $2, $3, $4::text[]::bigint[], $5::text[]::numeric[], $6::text[]::uuid[])"
	effect = "insert into effect (event_id, aggregate_id) values ($1::text::uuid, $2)"
)

// handle is one transaction per poll. It may run again for the same records: nothing happens then.
func handle(ctx context.Context, database *pgx.Conn, records []*kgo.Record) error {
	types, keys, numbers := []string{}, []string{}, map[string][]*string{}
	for place, record := range records {
		types, keys = append(types, record.Topic), append(keys, string(record.Key))
		for _, header := range []string{"seq", "position", "id"} {
			numbers[header] = append(numbers[header], nil)
		}
		for _, header := range record.Headers {
			value := string(header.Value)
			if header.Key == "aggregatetype" {
				types[place] = value
			} else if known := numbers[header.Key]; known != nil {
				known[place] = &value
			}
		}
	}
	return pgx.BeginFunc(ctx, database, func(transaction pgx.Tx) error {
		var isNew []bool
		answer := transaction.QueryRow(ctx, admit, name, types, keys, numbers["seq"], numbers["position"], numbers["id"])
		if err := answer.Scan(&isNew); err != nil {
			return err
		}
		for place := range records {
			if isNew[place] {
				if _, err := transaction.Exec(ctx, effect, numbers["id"][place], keys[place]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func main() {
	if err := consume(context.Background(), os.Getenv("DATABASE_URL"), os.Getenv("BROKERS"), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}
