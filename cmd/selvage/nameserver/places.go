package nameserver

import (
	"log/slog"
	"path/filepath"

	"github.com/selvage-edge/selvage/cmd/selvage/config"
	"github.com/selvage-edge/selvage/edge/geo"
)

// OpenGeo opens the place databases; what becomes of each is logged.
func OpenGeo(c config.Geo, log *slog.Logger) (*geo.DB, error) {
	log = log.With("room", "geo")
	return geo.Open(geo.Config{Files: c.Databases, Default: c.Default(), OnEvent: func(e geo.Event) {
		switch {
		case e.Err == nil:
			log.Info("a place database is in use", "file", e.File, "type", e.Type, "built", e.Built)
		case e.Kept:
			log.Error("a place database cannot be read any more; the one before stays in use until a good one is there", "file", e.File, "err", e.Err)
		default:
			log.Error("a place database cannot be read; the configured default stands in until it can", "file", e.File, "err", e.Err)
		}
	}})
}

// Folders are those of the databases: they must stay readable, for a file that is
// replaced by renaming is another one.
func Folders(c config.Geo) (all []string) {
	for _, f := range c.Databases {
		all = append(all, filepath.Dir(f))
	}
	return all
}
