// Command writer writes events in the transaction of the change they tell of: by an insert, and by postrider.emit.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// place is an insert: in order if whatever changes this order is locked before.
func place(ctx context.Context, transaction pgx.Tx, order string) error {
	if _, err := transaction.Exec(ctx, "insert into purchase (id, state) values ($1, 'placed')", order); err != nil {
		return err
	}
	_, err := transaction.Exec(ctx, `insert into outbox (id, aggregatetype, aggregateid, type, payload)
		values (gen_random_uuid(), 'order', $1, 'OrderPlaced', $2)`, order, map[string]string{"order": order})
	return err
}

// pay is by postrider.emit: in order, whoever writes, and it works in every capture mode.
func pay(ctx context.Context, transaction pgx.Tx, order string) error {
	if _, err := transaction.Exec(ctx, "update purchase set state = 'paid' where id = $1", order); err != nil {
		return err
	}
	emit := "select postrider.emit('order', $1, 'OrderPaid', $2::json)"
	_, err := transaction.Exec(ctx, emit, order, map[string]string{"order": order})
	return err
}

func write(ctx context.Context, databaseURL string, orders int) error {
	database, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer database.Close(ctx)
	for number := range orders {
		order := fmt.Sprintf("go-%d", number)
		for _, step := range []func(context.Context, pgx.Tx, string) error{place, pay} {
			change := func(transaction pgx.Tx) error { return step(ctx, transaction, order) }
			if err := pgx.BeginFunc(ctx, database, change); err != nil {
				return err
			}
		}
	}
	return nil
}

func main() {
	orders, err := strconv.Atoi(os.Args[1])
	if err == nil {
		err = write(context.Background(), os.Getenv("DATABASE_URL"), orders)
	}
	if err != nil {
		log.Fatal(err)
	}
}
