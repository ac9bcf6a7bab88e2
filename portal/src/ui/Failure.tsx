import { useCoseat } from "../coseat";
import { errorText } from "../errors";

/** The sentence of a failed change, read to screen readers at once. Nothing without a failure. */
export function Failure({ failure }: { failure: unknown }) {
  const coseat = useCoseat();
  if (failure === null) return null;
  return (
    <p className="cs-error" role="alert">
      {errorText(coseat, failure)}
    </p>
  );
}
