#include "data/file_kind.h"

#include <array>

#include "kernels/base/error.h"
#include "kernels/base/program.h"

namespace drover {

namespace {

using namespace std::string_view_literals;

struct Kind {
  std::string_view begins, what, command;  // {0}: the file, {1}: where its rows are to be, both as words of a shell
};

constexpr std::array kKinds{
    Kind{"\x28\xB5\x2F\xFD"sv, "compressed by zstd", "zstd -d {0}"},
    Kind{"\xFD\x37zXZ"sv, "compressed by xz", "xz -dk {0}"},
    Kind{"BZh"sv, "compressed by bzip2", "bunzip2 --keep {0}"},
    Kind{"PK\x03\x04"sv, "a zip archive", "unzip {0}"},
    Kind{"PAR1"sv, "a Parquet table",
         "python3 -c \"import pandas, sys; pandas.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient='records', "
         "lines=True)\" {0} {1}"},
    Kind{"ARROW1"sv, "an Arrow table",
         "python3 -c \"import pandas, sys; pandas.read_feather(sys.argv[1]).to_json(sys.argv[2], orient='records', "
         "lines=True)\" {0} {1}"},
    Kind{"\xFF\xFE\0\0"sv, "text in UTF-32", "iconv -f UTF-32 -t UTF-8 {0} > {1}"},
    Kind{"\xFF\xFE"sv, "text in UTF-16", "iconv -f UTF-16 -t UTF-8 {0} > {1}"},
    Kind{"\xFE\xFF"sv, "text in UTF-16", "iconv -f UTF-16 -t UTF-8 {0} > {1}"},
    Kind{"{\0"sv, "text in UTF-16", "iconv -f UTF-16LE -t UTF-8 {0} > {1}"},
    Kind{"\0{"sv, "text in UTF-16", "iconv -f UTF-16BE -t UTF-8 {0} > {1}"},
    Kind{"[\0"sv, "text in UTF-16", "iconv -f UTF-16LE -t UTF-8 {0} > {1}"},
    Kind{"\0["sv, "text in UTF-16", "iconv -f UTF-16BE -t UTF-8 {0} > {1}"},
    Kind{kLfsPointer, "a Git LFS pointer, not the file itself", "git lfs pull --include {0}"},
};

}  // namespace

void refuse_other_kinds(const fs::path& file, std::string_view bytes) {
  const auto refuse = [&](std::string_view what, std::string_view command) {
    const std::string from = shell_quoted(file.string()), to = shell_quoted(file.string() + ".jsonl");
    fail(Fault::bad_data, "{}: is {}; rows are JSON in UTF-8, made so: {}", file.string(), what,
         fmt::format(fmt::runtime(command), from, to));
  };
  for (const Kind& kind : kKinds) {
    if (bytes.starts_with(kind.begins)) refuse(kind.what, kind.command);
  }
}

}  // namespace drover
