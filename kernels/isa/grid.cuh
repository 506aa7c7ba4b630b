// Programmatic dependent launch: a kernel may start before the kernel that it depends on has finished.
#pragma once

namespace isa {

// Waits until all earlier kernels of the stream have finished and their writes are visible. Returns at once if the
// kernel was launched normally.
__device__ __forceinline__ void grid_dependency_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// Allows the next kernel of the stream to start once all CTAs have called this or exited.
__device__ __forceinline__ void grid_dependency_launch() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

}  // namespace isa
