package guest

import "github.com/selvage-edge/selvage/runtime/sched"

// Long is the scheduler of those that compute long.
func (r *Runner) Long() *sched.Scheduler { return r.long }
