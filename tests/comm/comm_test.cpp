// Self, Count and Threads communicators, agreement and the checker. Over MPI the same exchanges run in tests/comm/mpi.
#include <gmock/gmock.h>

#include <atomic>
#include <cstdlib>

#include "kernels/comm/agree.h"
#include "kernels/comm/checked.h"
#include "kernels/comm/count.h"
#include "kernels/comm/gather.h"
#include "kernels/comm/mesh.h"
#include "kernels/comm/observed.h"
#include "kernels/comm/rank_sum.h"
#include "kernels/comm/threads.h"
#include "tests/comm/exchanges.h"

namespace drover {
namespace {

using testing::HasSubstr;
using testing::Not;

template <typename Work>
Error error_of(Work&& work) {
  try {
    work();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error was thrown";
  return Error(Fault::internal, "");
}

// Shortens the deadline for one test.
struct ShortDeadline {
  ShortDeadline() { setenv("DROVER_COMM_TIMEOUT_S", "0.3", 1); }
  ~ShortDeadline() { unsetenv("DROVER_COMM_TIMEOUT_S"); }
};

TEST(Self, DoesWhatOneRankNeeds) {
  const auto c = make_self_communicator("tp");
  check_everything(*c);
  EXPECT_EQ(c->axis(), "tp");
  float x[1] = {};
  EXPECT_EQ(error_of([&] { c->send(matrix(x, 1, 1), 0, 0); }).fault(), Fault::internal);
}

TEST(Threads, EverythingOnAnyNumberOfRanks) {
  for (int n : {1, 2, 3, 4, 8}) run_on_threads({{Axis::tp, n}}, [](Mesh& mesh) { check_everything(mesh.tp()); });
}

TEST(Threads, EveryAxisOfAMesh) {
  const MeshShape shape{{Axis::tp, 2}, {Axis::cp, 2}, {Axis::pp, 3}};
  run_on_threads(shape, [&](Mesh& mesh) {
    for (const Axis axis : kAxes) {
      Communicator& group = *mesh.axes[axis];
      EXPECT_EQ(group.axis(), name_of(axis));
      check_briefly(group);
      const auto ranks = group.gather_strings(std::to_string(mesh.world->rank()));
      for (int r = 0; r < shape[axis]; ++r) {
        MeshPosition there = mesh.position;
        there[axis] = r;
        expect(ranks[static_cast<size_t>(r)] == std::to_string(rank_of(there, shape)), group, "the mesh");
      }
    }
  });
}

TEST(Threads, AWrongOrderOfSummationWouldBeSeen) {
  // The drawn values must tell orders apart, or the exchange tests show nothing.
  int64_t different = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    const float a = drawn_element<float>(0, i), b = drawn_element<float>(1, i), c = drawn_element<float>(2, i);
    different += (a + b) + c != (c + b) + a;
  }
  EXPECT_GT(different, 50);
}

TEST(Threads, ASilentRankIsNamedAfterTheDeadline) {
  ShortDeadline deadline;
  const Error barrier = error_of([] {
    run_on_threads({{Axis::tp, 3}}, [](Mesh& mesh) {
      if (mesh.position.tp() != 1) mesh.tp().barrier();
    });
  });
  EXPECT_EQ(barrier.fault(), Fault::rank_hangs);
  EXPECT_THAT(barrier.what(), HasSubstr("tp: barrier waited 0.3 s for rank 1 of tp"));
  const Error receive = error_of([] {
    run_on_threads({{Axis::pp, 2}}, [](Mesh& mesh) {
      float x[4] = {};
      if (mesh.position.pp() == 0) mesh.pp().receive(matrix(x, 4, 1), 1, 0)->wait();
    });
  });
  EXPECT_EQ(receive.fault(), Fault::rank_hangs);
  EXPECT_THAT(receive.what(), HasSubstr("pp: receive waited 0.3 s for rank 1 of pp"));
}

TEST(Threads, ASendEndsOnlyWithItsReceive) {
  ShortDeadline deadline;
  const Error send = error_of([] {
    run_on_threads({{Axis::pp, 2}}, [](Mesh& mesh) {
      float x[4] = {};
      if (mesh.position.pp() == 0) mesh.pp().send(matrix(x, 4, 1), 1, 0)->wait();
    });
  });
  EXPECT_THAT(send.what(), HasSubstr("pp: send waited"));
}

TEST(Threads, AFailureReleasesTheOthers) {
  const Error error = error_of([] {
    run_on_threads({{Axis::tp, 4}}, [](Mesh& mesh) {
      if (mesh.position.tp() == 2) fail(Fault::bad_data, "line 7 is broken");
      mesh.tp().barrier();
    });
  });
  EXPECT_EQ(error.fault(), Fault::bad_data);
  EXPECT_STREQ(error.what(), "line 7 is broken");
}

struct SeenMessages : MessageObserver {
  std::vector<std::string> all;
  void begin(const CommCall& c) override { all.push_back(fmt::format("{} {} {} {}", c.kind, c.axis, c.size, c.bytes)); }
  void end(const CommCall& c) override { all.back() += std::string_view(all.back()).starts_with(c.kind) ? "." : "?"; }
};

TEST(Observed, MovesWhatItIsGiven) {
  run_on_threads({{Axis::tp, 3}}, [](Mesh& mesh) {
    MessageView view;
    check_everything(observed_mesh(mesh, view).tp());
    SeenMessages seen;
    view.observer = &seen;
    check_everything(observed_mesh(mesh, view).tp());
    EXPECT_GT(seen.all.size(), 10);
  });
}

TEST(Observed, NamesKindGroupAndBytes) {
  run_on_threads({{Axis::pp, 2}}, [](Mesh& mesh) {
    MessageView view;
    const Mesh through = observed_mesh(mesh, view);
    EXPECT_EQ(through.axes[Axis::tp], mesh.axes[Axis::tp]) << "alone: nothing to see";
    SeenMessages seen;
    float x[6] = {}, whole[12] = {};
    through.pp().all_reduce(matrix(x, 6, 1));
    view.observer = &seen;
    through.pp().all_reduce(matrix(x, 6, 1));
    through.pp().all_gather(matrix(x, 6, 1), matrix(whole, 12, 1));
    through.pp().start_all_reduce(matrix(x, 2, 1))->wait();
    const bool first = mesh.position.pp() == 0;
    const auto transfer =
        first ? through.pp().send(matrix(x, 3, 1), 1, 0) : through.pp().receive(matrix(x, 3, 1), 0, 0);
    EXPECT_EQ(seen.all.size(), 3) << "it is waited for later";
    transfer->wait();
    transfer->wait();
    view.observer = nullptr;
    through.pp().barrier();
    EXPECT_THAT(seen.all, testing::ElementsAre("all_reduce pp 2 24.", "all_gather pp 2 48.", "all_reduce pp 2 8.",
                                               first ? "send pp 2 12." : "receive pp 2 12."));
  });
}

TEST(Agree, TheLowestRanksErrorIsEveryones) {
  std::atomic<int> right{0};
  run_on_threads({{Axis::tp, 4}}, [&](Mesh& mesh) {
    agree_or_throw(*mesh.world, std::nullopt);
    try {
      together(*mesh.world, [&] {
        const int tp = mesh.position.tp();
        if (tp >= 2) fail(tp == 2 ? Fault::missing_input : Fault::io, "no file {}", tp);
      });
    } catch (const Error& error) {
      right += error.fault() == Fault::missing_input && error.what() == std::string("no file 2 (on rank 2)");
    }
    try {
      together(*mesh.world, [] { fail(Fault::bad_recipe, "two lines\nof text"); });
    } catch (const Error& error) {
      right += error.fault() == Fault::bad_recipe && error.what() == std::string("two lines\nof text");
    }
  });
  EXPECT_EQ(right, 8);
}

TEST(Agree, RanksThatDifferAreNamed) {
  for (int odd : {0, 1, 3}) {
    const Error error = error_of([&] {
      run_on_threads({{Axis::tp, 4}}, [&](Mesh& mesh) {
        check_same(*mesh.world, "the program", "v1");
        check_same(*mesh.world, "the recipe", mesh.position.tp() == odd ? "b" : "a");
      });
    });
    EXPECT_EQ(error.fault(), Fault::bad_recipe);
    EXPECT_THAT(error.what(), HasSubstr(fmt::format("the recipe differs on rank {} from", odd)));
  }
  EXPECT_EQ(list_ranks({1, 2, 5}), "1, 2 and 5");
}

TEST(Checked, DifferentCallsAreNamed) {
  run_on_threads({{Axis::tp, 3}}, [](Mesh& mesh) { check_briefly(*make_checked_communicator(mesh.axes[Axis::tp])); });
  const auto run = [](const std::function<void(Communicator&, int)>& work) {
    return error_of([&] {
      run_on_threads({{Axis::tp, 3}}, [&](Mesh& mesh) {
        const int rank = mesh.position.tp();
        const auto c = make_checked_communicator(mesh.axes[Axis::tp]);
        c->barrier();
        work(*c, rank);
      });
    });
  };
  const Error size = run([](Communicator& c, int rank) {
    std::vector<float> x(64);
    c.all_reduce(matrix(x.data(), rank == 2 ? 63 : 64, 1));
  });
  EXPECT_EQ(size.fault(), Fault::internal);
  EXPECT_THAT(size.what(), HasSubstr("rank 0: all_reduce 64 × f32 (call 1); rank 2: all_reduce 63 × f32 (call 1)"));
  EXPECT_THAT(size.what(), Not(HasSubstr("rank 1")));
  const Error call = run([](Communicator& c, int rank) {
    std::vector<float> x(64);
    if (rank == 1) return c.barrier();
    c.broadcast(matrix(x.data(), 64, 1), 0);
  });
  EXPECT_THAT(call.what(), HasSubstr("rank 0: broadcast 64 × f32 from rank 0 (call 1); rank 1: barrier (call 1)"));
}

TEST(Count, TalliesAndAnswersAsIdenticalRanksWould) {
  CountCommunicator c("tp", 1, 4);
  std::vector<float> part = {1, 2, 3, 4}, whole(16);
  c.all_reduce(matrix(part.data(), 2, 2));
  EXPECT_EQ(part[3], 4);
  c.all_gather(matrix(part.data(), 2, 2), matrix(whole.data(), 8, 2));
  EXPECT_EQ(whole, (std::vector<float>{1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4}));
  c.send(matrix(part.data(), 2, 2), 2, 0)->wait();
  c.receive(matrix(part.data(), 2, 2), 0, 0)->wait();
  // Memory that is only counted is never touched.
  char* const nowhere = reinterpret_cast<char*>(uintptr_t{1} << 40);
  c.all_reduce(matrix(nowhere, 100, 10, DType::bf16, Where::nowhere));
  c.all_gather(matrix(nowhere, 100, 10, DType::bf16, Where::nowhere),
               matrix(nowhere, 400, 10, DType::bf16, Where::nowhere));
  EXPECT_EQ(c.gather_strings("ab"), std::vector<std::string>(4, "ab"));
  EXPECT_EQ(c.count("all_reduce").calls, 2);
  EXPECT_EQ(c.count("all_reduce").bytes, 16 + 2000);
  EXPECT_EQ(c.count("all_gather").bytes, 64 + 8000);
  EXPECT_EQ(c.count("send").bytes, 16);
  EXPECT_EQ(c.count("receive").bytes, 16);
  EXPECT_EQ(c.count("broadcast").calls, 0);
  EXPECT_EQ(error_of([&] { c.send(matrix(part.data(), 2, 2), 1, 0); }).fault(), Fault::internal);
}

TEST(Gather, ValuesListsAndTheLargestOfAllRanks) {
  struct Pair {
    int rank;
    double half;
  };
  run_on_threads({{Axis::tp, 3}}, [](Mesh& mesh) {
    const int rank = mesh.position.tp();
    const std::vector<Pair> pairs = gather(mesh.tp(), Pair{rank, rank / 2.0});
    ASSERT_EQ(pairs.size(), 3u);
    EXPECT_EQ(pairs[2].rank, 2);
    EXPECT_EQ(pairs[1].half, 0.5);
    const std::vector<float> values(static_cast<size_t>(rank), 0.1f);  // the first has none
    const auto lists = gather_lists<float>(mesh.tp(), values);
    EXPECT_EQ(lists, (std::vector<std::vector<float>>{{}, {0.1f}, {0.1f, 0.1f}}));
    EXPECT_EQ(largest(mesh.tp(), -rank - (int64_t{1} << 40)), -(int64_t{1} << 40));
  });
  EXPECT_EQ(largest(*make_self_communicator("world"), -5), -5);
}

TEST(Mesh, PositionsAndRanksAreInverse) {
  const MeshShape shape{{Axis::tp, 2}, {Axis::pp, 3}, {Axis::dp, 4}};
  for (int rank = 0; rank < shape.size(); ++rank) EXPECT_EQ(rank_of(position_of(rank, shape), shape), rank);
  EXPECT_EQ(position_of(1, shape).tp(), 1);
  EXPECT_EQ(position_of(2, shape).pp(), 1);
  EXPECT_EQ(position_of(6, shape).dp(), 1);
  const Mesh mesh = make_count_mesh(shape, {{Axis::tp, 1}, {Axis::pp, 2}, {Axis::dp, 3}});
  EXPECT_EQ(mesh.world->rank(), 23);
  EXPECT_EQ(mesh.pp().rank(), 2);
  EXPECT_EQ(mesh.dp().size(), 4);
  EXPECT_EQ(make_self_mesh().world->size(), 1);
}

TEST(Mesh, ContextParallelRanksLieBetweenTensorParallelOnesAndStages) {
  const MeshShape shape{{Axis::tp, 2}, {Axis::cp, 4}, {Axis::pp, 3}, {Axis::dp, 2}};
  EXPECT_EQ(shape.size(), 48);
  for (int rank = 0; rank < shape.size(); ++rank) EXPECT_EQ(rank_of(position_of(rank, shape), shape), rank);
  EXPECT_EQ(rank_of({{Axis::cp, 1}}, shape), 2);
  EXPECT_EQ(rank_of({{Axis::pp, 1}}, shape), 8);
  EXPECT_EQ(rank_of({{Axis::dp, 1}}, shape), 24);
}

TEST(RankSum, Bf16RoundsOnce) {
  // 1 + 2⁻⁸ lies half a step above 1 and rounds to 1: rounding after each addition would lose both small terms.
  const bf16 a[1] = {bf16(1.0f)}, b[1] = {bf16(0x1p-8f)}, c[1] = {bf16(0x1p-8f)};
  const void* parts[] = {a, b, c};
  bf16 out[1];
  sum_in_rank_order(parts, 1, DType::bf16, out);
  EXPECT_EQ(static_cast<float>(out[0]), 1 + 0x1p-7f);
  EXPECT_EQ(static_cast<float>(bf16(static_cast<float>(bf16(1 + 0x1p-8f)) + 0x1p-8f)), 1.0f);
}

TEST(Deadline, ComesFromTheEnvironment) {
  EXPECT_EQ(comm_deadline_seconds(), 600);
  setenv("DROVER_COMM_TIMEOUT_S", "2.5", 1);
  EXPECT_EQ(comm_deadline_seconds(), 2.5);
  setenv("DROVER_COMM_TIMEOUT_S", "soon", 1);
  EXPECT_EQ(comm_deadline_seconds(), 600);
  unsetenv("DROVER_COMM_TIMEOUT_S");
}

}  // namespace
}  // namespace drover
