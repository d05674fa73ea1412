// Package wasip1 is the import table of WASI preview 1 as real guests need it:
// clocks, randomness, arguments, the environment, output to the function's log
// and waiting. There are no files and no sockets: those calls answer an errno.
package wasip1

import "github.com/selvage-edge/selvage/runtime/engine"

// Module is the import module.
const Module = "wasi_snapshot_preview1"

// OpPollOneoff is poll_oneoff with nothing ready yet: its one argument is the
// nanoseconds to wait, its result 0.
const OpPollOneoff engine.Op = 64

// Imports is the import table of WASI preview 1, all of it: a toolchain links
// in calls that are never made.
func Imports() []engine.Import {
	table := make([]engine.Import, 0, len(calls))
	for _, c := range calls {
		i := engine.Import{Module: Module, Name: c.name, Builtin: c.builtin, Params: kinds(c.params), Results: []engine.ValKind{engine.I32}}
		switch c.builtin {
		case engine.WASIPollOneoff:
			i.Op = OpPollOneoff
		case engine.WASIProcExit:
			i.Results = nil
		}
		table = append(table, i)
	}
	return table
}

// call is one function: its parameters as letters, i for i32 and I for i64. All
// but proc_exit return an errno.
type call struct {
	name    string
	params  string
	builtin engine.Builtin
}

var calls = []call{
	{"args_get", "ii", engine.WASIArgsGet},
	{"args_sizes_get", "ii", engine.WASIArgsSizesGet},
	{"environ_get", "ii", engine.WASIEnvironGet},
	{"environ_sizes_get", "ii", engine.WASIEnvironSizesGet},
	{"clock_res_get", "ii", engine.WASIClockResGet},
	{"clock_time_get", "iIi", engine.WASIClockTimeGet},
	{"random_get", "ii", engine.WASIRandomGet},
	{"poll_oneoff", "iiii", engine.WASIPollOneoff},
	{"sched_yield", "", engine.WASISchedYield},
	{"proc_exit", "i", engine.WASIProcExit},
	{"proc_raise", "i", engine.WASINotSupported},

	{"fd_write", "iiii", engine.WASIFdWrite},
	{"fd_read", "iiii", engine.WASIFdRead},
	{"fd_fdstat_get", "ii", engine.WASIFdFdstatGet},
	{"fd_fdstat_set_flags", "ii", engine.WASIFdFdstatSetFlags},
	{"fd_filestat_get", "ii", engine.WASIFdFilestatGet},
	{"fd_close", "i", engine.WASIFdClose},
	{"fd_seek", "iIii", engine.WASIFdSeek},

	// No descriptor is a file, a directory or a socket.
	{"fd_advise", "iIIi", engine.WASIFdSeek},
	{"fd_allocate", "iII", engine.WASIFdSeek},
	{"fd_datasync", "i", engine.WASINotFile},
	{"fd_fdstat_set_rights", "iII", engine.WASIFdFdstatSetRights},
	{"fd_filestat_set_size", "iI", engine.WASINotFile},
	{"fd_filestat_set_times", "iIIi", engine.WASIFdFilestatSetTimes},
	{"fd_pread", "iiiIi", engine.WASIFdSeek},
	{"fd_prestat_get", "ii", engine.WASIBadFD},
	{"fd_prestat_dir_name", "iii", engine.WASIBadFD},
	{"fd_pwrite", "iiiIi", engine.WASIFdSeek},
	{"fd_readdir", "iiiIi", engine.WASINotDirectory},
	{"fd_renumber", "ii", engine.WASIFdRenumber},
	{"fd_sync", "i", engine.WASINotFile},
	{"fd_tell", "ii", engine.WASIFdSeek},
	{"path_create_directory", "iii", engine.WASINotDirectory},
	{"path_filestat_get", "iiiii", engine.WASINotDirectory},
	{"path_filestat_set_times", "iiiiIIi", engine.WASINotDirectory},
	{"path_link", "iiiiiii", engine.WASINotDirectory},
	{"path_open", "iiiiiIIii", engine.WASINotDirectory},
	{"path_readlink", "iiiiii", engine.WASINotDirectory},
	{"path_remove_directory", "iii", engine.WASINotDirectory},
	{"path_rename", "iiiiii", engine.WASINotDirectory},
	{"path_symlink", "iiiii", engine.WASIPathSymlink},
	{"path_unlink_file", "iii", engine.WASINotDirectory},
	{"sock_accept", "iii", engine.WASINotSocket},
	{"sock_recv", "iiiiii", engine.WASINotSocket},
	{"sock_send", "iiiii", engine.WASINotSocket},
	{"sock_shutdown", "ii", engine.WASINotSocket},
}

func kinds(letters string) []engine.ValKind {
	var k []engine.ValKind
	for _, l := range letters {
		if l == 'I' {
			k = append(k, engine.I64)
		} else {
			k = append(k, engine.I32)
		}
	}
	return k
}
