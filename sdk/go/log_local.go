//go:build !wasip1

package edge

import (
	"context"
	"log/slog"
)

func logLine(level int32, text string) { slog.Log(context.Background(), slog.Level(level), text) }
