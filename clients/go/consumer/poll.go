package main

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

const pollRecords = 500

func consume(ctx context.Context, databaseURL, brokers, topic string) error {
	database, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer database.Close(ctx)
	kafka, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.ConsumerGroup(name),
		kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer kafka.Close()
	for {
		polled := kafka.PollRecords(ctx, pollRecords)
		if err := polled.Err(); err != nil {
			return err
		}
		if records := polled.Records(); len(records) > 0 {
			if err := handle(ctx, database, records); err != nil {
				return err
			}
			if err := kafka.CommitRecords(ctx, records...); err != nil {
				return err
			}
		}
		kafka.AllowRebalance()
	}
}
