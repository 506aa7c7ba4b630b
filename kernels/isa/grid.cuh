// A kernel that may be launched before the one it depends on is over (programmatic dependent launch).
#pragma once

namespace isa {

// Until all kernels before this one in its stream are over and what they wrote is seen; at once without such a launch.
__device__ __forceinline__ void grid_dependency_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// The next kernel of the stream may start once all CTAs have come here or ended.
__device__ __forceinline__ void grid_dependency_launch() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

}  // namespace isa
