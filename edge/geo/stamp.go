package geo

import (
	"io/fs"
	"syscall"
)

func stampOf(i fs.FileInfo) stamp {
	s := stamp{size: i.Size(), modified: i.ModTime()}
	if sys, ok := i.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}
