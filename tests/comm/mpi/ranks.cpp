// Ranks under mpirun: `ranks` runs all exchanges on the world and on every axis of a mesh; `ranks hang` wants a silent
// rank to be named; `ranks mismatch` wants messages of another size to be refused; `ranks large` sends more than 2 GiB;
// `ranks speed` prints times. Exit 0 when all is right on all ranks; of `ranks hang` 80.
#include <chrono>
#include <functional>
#include <string_view>
#include <thread>

#include "kernels/base/log.h"
#include "kernels/comm/agree.h"
#include "kernels/comm/checked.h"
#include "kernels/comm/mesh.h"
#include "tests/comm/exchanges.h"

namespace drover {
namespace {

void exchanges(int size) {
  for (const MeshShape& shape :
       {MeshShape{{Axis::tp, size}}, MeshShape{{Axis::pp, size}}, MeshShape{{Axis::dp, size}},
        MeshShape{{Axis::tp, 2}, {Axis::pp, 2}, {Axis::dp, size / 4}}, MeshShape{{Axis::tp, 2}, {Axis::dp, size / 2}},
        MeshShape{{Axis::cp, 2}, {Axis::dp, size / 2}}}) {
    if (shape.size() != size) continue;
    Mesh mesh = make_mpi_mesh(shape);
    if (shape.tp() == size) {
      check_everything(*mesh.world);
      check_briefly(*make_checked_communicator(mesh.axes[Axis::tp]));
      continue;
    }
    check_briefly(mesh.tp());
    check_briefly(mesh.cp());
    check_briefly(mesh.dp());
    check_messages(mesh.pp());
    const auto ranks = mesh.dp().gather_strings(std::to_string(mesh.world->rank()));
    for (int d = 0; d < shape.dp(); ++d) {
      MeshPosition there = mesh.position;
      there[Axis::dp] = d;
      expect(ranks[static_cast<size_t>(d)] == std::to_string(rank_of(there, shape)), mesh.dp(), "the mesh");
    }
  }
  Mesh mesh = make_mpi_mesh({{Axis::dp, size}});
  bool agreed = false;
  try {
    together(*mesh.world, [&] {
      if (mesh.world->rank() == size - 1) fail(Fault::missing_input, "no such file");
    });
  } catch (const Error& error) {
    agreed = error.fault() == Fault::missing_input;
  }
  expect(agreed, *mesh.world, "agree_or_throw");
  try {
    make_mpi_mesh({{Axis::tp, size + 1}});
    expect(false, *mesh.world, "a mesh of another size");
  } catch (const Error& error) {
    if (error.fault() != Fault::bad_recipe) throw;
  }
}

// The last rank never answers; every other one must say so in time.
void hang(int size) {
  Mesh mesh = make_mpi_mesh({{Axis::tp, size}});
  const int silent = size - 1;
  const auto start = std::chrono::steady_clock::now();
  if (mesh.position.tp() == silent) {
    std::this_thread::sleep_for(std::chrono::seconds(30));
    return;
  }
  std::vector<float> x(1 << 20);
  const auto must_hang = [&](const std::string& call, const std::function<void()>& work) {
    try {
      work();
    } catch (const Error& error) {
      const std::string who = fmt::format("{} waited {:g} s for rank {} of", call, comm_deadline_seconds(), silent);
      if (error.fault() != Fault::rank_hangs || std::string(error.what()).find(who) == std::string::npos) throw;
      return;
    }
    expect(false, mesh.tp(), "waiting for a silent rank in " + call);
  };
  must_hang("tp: receive", [&] { mesh.tp().receive(matrix(x.data(), 1 << 20, 1), silent, 3)->wait(); });
  must_hang("world: all_reduce", [&] { mesh.world->all_reduce(matrix(x.data(), 1 << 20, 1)); });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  expect(seconds < comm_deadline_seconds() * 3.5, mesh.tp(), "the deadline");
  // What was sent to the silent rank is still under way, and MPI_Finalize might wait for it: when all have seen the
  // hang, it ends as in the program.
  for (int other = 1; other < silent; ++other) {
    if (mesh.position.tp() == other) mesh.tp().send(matrix(x.data(), 1, 1), 0, 4)->wait();
    if (mesh.position.tp() == 0) mesh.tp().receive(matrix(x.data(), 1, 1), other, 4)->wait();
  }
  if (mesh.position.tp() == 0) abort_all(80);
  std::this_thread::sleep_for(std::chrono::seconds(30));
}

void mismatch(int size) {
  Mesh mesh = make_mpi_mesh({{Axis::tp, size}});
  std::vector<float> x(100);
  if (mesh.position.tp() > 1) return;
  if (mesh.position.tp() == 0) {
    mesh.tp().send(matrix(x.data(), 50, 1), 1, 0)->wait();
    return;
  }
  try {
    mesh.tp().receive(matrix(x.data(), 100, 1), 0, 0)->wait();
  } catch (const Error& error) {
    const std::string words = error.what();
    if (error.fault() == Fault::internal && words.find("expects 400 bytes from rank 0 of tp") != std::string::npos &&
        words.find("sent 200") != std::string::npos)
      return;
    throw;
  }
  expect(false, mesh.tp(), "receiving a message of another size");
}

void large(int size) {
  Mesh mesh = make_mpi_mesh({{Axis::tp, size}});
  const int64_t rows = (int64_t{1} << 31) / 2 + 12345;  // 2 GiB and some, as bf16
  if (mesh.position.tp() > 1) return;
  std::vector<uint16_t> bits(static_cast<size_t>(rows));
  const Tensor x = matrix(bits.data(), rows, 1, DType::bf16);
  const auto value = [](int64_t i) { return static_cast<uint16_t>(i ^ (i >> 16)); };
  if (mesh.position.tp() == 0) {
    for (int64_t i = 0; i < rows; ++i) bits[static_cast<size_t>(i)] = value(i);
    mesh.tp().send(x, 1, 9)->wait();
    return;
  }
  mesh.tp().receive(x, 0, 9)->wait();
  for (int64_t i = 0; i < rows; ++i) {
    const bool same = bits[static_cast<size_t>(i)] == value(i);
    if (!same) expect(false, mesh.tp(), fmt::format("element {} of a large message", i));
  }
}

void speed(int size) {
  Mesh mesh = make_mpi_mesh({{Axis::tp, size}});
  for (int64_t n : {1, 1 << 10, 1 << 14, 1 << 18, 1 << 22}) {
    std::vector<float> x(static_cast<size_t>(n));
    mesh.tp().barrier();
    const auto start = std::chrono::steady_clock::now();
    const int repeats = n < (1 << 18) ? 200 : 10;
    for (int i = 0; i < repeats; ++i) mesh.tp().all_reduce(matrix(x.data(), n, 1));
    const double us =
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / repeats;
    log::info("all_reduce of {} f32 over {} ranks: {:.1f} us, {:.2f} GB/s", n, size, us,
              static_cast<double>(n) * 4 / us / 1e3);
  }
}

}  // namespace
}  // namespace drover

int main(int argc, char** argv) {
  using namespace drover;
  try {
    const MpiWorld world = start_mpi(&argc, &argv);
    log::set_rank(world.rank, world.size);
    require(launched_by_mpi() && world.local_size == world.size && world.local_rank == world.rank,
            "all ranks run on this machine");
    const std::string_view mode = argc > 1 ? argv[1] : "exchanges";
    if (mode == "exchanges") exchanges(world.size);
    if (mode == "hang") hang(world.size);
    if (mode == "mismatch") mismatch(world.size);
    if (mode == "large") large(world.size);
    if (mode == "speed") speed(world.size);
    finish_mpi();
    return 0;
  } catch (const std::exception& error) {
    log::write_any(error.what());
    abort_all(1);
  }
}
