#include "data/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/base/program.h"

namespace drover {

namespace {

constexpr std::string_view kMagic = "\x1F\x8B";
constexpr int kGzipWindow = 15 + 16;  // the largest window, in gzip's frame
constexpr size_t kPieceBytes = size_t{1} << 20;

class Inflater {
 public:
  Inflater() { require(inflateInit2(&stream_, kGzipWindow) == Z_OK, "zlib starts"); }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Takes from `bytes`; zlib's code.
  int step(std::string_view& bytes) {
    const size_t taken = std::min(bytes.size(), kPieceBytes);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(taken);
    stream_.next_out = reinterpret_cast<Bytef*>(piece_.data());
    stream_.avail_out = static_cast<uInt>(kPieceBytes);
    const int code = inflate(&stream_, Z_NO_FLUSH);
    bytes.remove_prefix(taken - stream_.avail_in);
    return code;
  }
  std::string_view piece() const { return {piece_.data(), kPieceBytes - stream_.avail_out}; }  // of the last step
  void next_member() { require(inflateReset(&stream_) == Z_OK, "zlib starts again"); }

 private:
  z_stream stream_{};
  std::vector<char> piece_ = std::vector<char>(kPieceBytes);
};

}  // namespace

bool is_gzip(std::string_view bytes) { return bytes.starts_with(kMagic); }

void gunzip(const fs::path& file, std::string_view bytes, const std::function<void(std::string_view)>& use,
            size_t limit_bytes) {
  const auto broken = [&](const std::string& what) {
    fail(Fault::bad_data, "{}: is compressed by gzip, and {}; copy or make the file again (gzip --test {})",
         file.string(), what, shell_quoted(file.string()));
  };
  Inflater inflater;
  size_t unpacked = 0;
  for (;;) {
    const int code = inflater.step(bytes);
    unpacked += inflater.piece().size();
    if (unpacked > limit_bytes) {
      fail(Fault::bad_data, "{}: holds more than {} MiB; unpack it: gunzip --keep {}", file.string(), limit_bytes >> 20,
           shell_quoted(file.string()));
    }
    use(inflater.piece());
    if (code == Z_STREAM_END) {
      if (bytes.find_first_not_of('\0') == std::string_view::npos) return;  // tapes are filled up with zeros
      if (!is_gzip(bytes)) broken("something else follows its end");
      inflater.next_member();
    } else if (code != Z_OK) {
      broken(code == Z_BUF_ERROR ? "it is cut off" : "it is damaged");  // the first: nothing is left to read
    }
  }
}

}  // namespace drover
